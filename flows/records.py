"""What is finished: the record of a stage names its inputs and outputs and is committed after these; it is the cache, wherever it lies.

``OUT/stages/NAME-KEY.json`` is the record of what the folder ``OUT/stages/NAME-KEY`` holds. The key is a digest of all that decides the
result: experiments, and machines with one bucket, share what is equal between them, and nothing is written over.
"""

import hashlib
import inspect
import json
import os
import re
import shutil
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
import shards
from flows.result import Result
from shards import boxes, locks, storage
from shards.plan import Plan, make_plan, missing
from shards.scenes_cache import images_of
from shards.terminal import console
from shards.write import write_shard

SCHEMA = 1
FREE = {
    "cache",
    "workers",
    "nproc",
    "checkpoint_every",
    "keep_every",
    "max_rejects",
}  # inputs that decide nothing
_METHOD = ("shards/*", "care/*.py", "care/train/*")
_FEATURES = (*_METHOD, "care/evaluate/features.py", "care/evaluate/images.py")
_JUDGED = (*_FEATURES, "care/evaluate/evaluation.py", "care/evaluate/resampling.py")
SOURCES = {  # by work or by verb: the files whose edit does a stage again
    "build": ("shards/*",),
    "pretrain": _METHOD,
    "features": _FEATURES,
    "knn": (*_JUDGED, "care/evaluate/knn.py", "care/evaluate/neighbours.py"),
    "linear": (*_JUDGED, "care/evaluate/linear*"),
    "finetune": (
        *_JUDGED,
        "care/evaluate/finetune.py",
        "care/evaluate/few_labels.py",
        "care/evaluate/recipes.py",
    ),
    "detect": (*_METHOD, "care/evaluate/*"),
    "attention": (*_JUDGED, "care/show/maps.py"),
    "report": ("shards/*", "care/*", "care/*/*"),
}


class Stage(NamedTuple):
    """A stage to do: a function in ``flows.stages`` and its inputs, which decide the result but for those that are ``FREE``.

    An input is JSON, or the result of another stage: its digest counts, and the function is given its ``url``.
    """

    out: str
    name: str
    work: str
    inputs: Result
    key: str

    @property
    def url(self) -> str:
        """The folder of its outputs; the record is beside it, named so and ``.json``."""
        return f"{self.out}/stages/{self.name}-{self.key[:8]}"

    def arguments(self) -> Result:
        """What the function is called with beside its folder."""
        return dict(_each(self.inputs, "url"))


def stage(out: str, name: str, work: str, inputs: Result) -> Stage:
    """A stage with its key: schema, work, and the digests of inputs and source files."""
    told = {
        part: identity(part, value, inputs)
        for part, value in _each(inputs, "digest").items()
        if part not in FREE
    }
    key = storage.digest([SCHEMA, work, code(work, inputs.get("verb", work)), told])
    return Stage(str(out).rstrip("/"), name, work, inputs, key)


def _each(value: Any, *fields: str) -> Any:
    # JSON with one field, or several by name, in the place of each result in it
    if not isinstance(value, dict):
        return value
    if {"url", "digest"} <= value.keys():
        return value[fields[0]] if len(fields) == 1 else {field: value[field] for field in fields}
    return {name: _each(part, *fields) for name, part in value.items()}


def identity(name: str, value: Any, inputs: Result) -> Any:
    """What an input is, wherever it lies: of a path or URL the digest of what is there, else itself."""
    known = ("[0-9a-f]{64}|(scenes|random|supervised):.*", str(value))
    if (
        name not in ("source", "train", "val", "encoder", "names")
        or value is None
        or re.fullmatch(*known)
    ):
        return value
    if name == "source":
        return _plan(inputs).digest
    if "index.json" in storage.listing(value):
        return storage.sha256(f"{value}/index.json")
    if name in ("encoder", "names"):  # a file, or a run that goes on: its newest checkpoint
        steps = [
            one
            for one in storage.listing(f"{value}/checkpoints", deep=True)
            if one.endswith("/manifest.json")
        ]
        with suppress(FileNotFoundError, IsADirectoryError):
            return storage.sha256(f"{value}/checkpoints/{max(steps)}" if steps else value)
        return value
    return (boxes.load(value) if inputs.get("verb") == "detect" else shards.open(value)).digest


@cache
def code(work: str, verb: str) -> str:
    """Digest of the function of a stage and of the source files it stands on."""
    root = Path(str(shards.__file__)).parents[1]
    text = (root / "flows" / "stages.py").read_text()  # importing it would import torch
    parts = [
        text[at : text.find("\n\n\n", at)]
        for at in (text.index(f"\ndef {name}(") for name in (work, "loaded"))
    ]
    paths = sorted(
        {
            path
            for pattern in SOURCES[verb]
            for path in root.glob(pattern)
            if path.suffix in (".py", ".j2", ".csv")
        }
    )
    return storage.digest(
        [*parts, *([path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in paths)]
    )


def found(one: Stage) -> Result | None:
    """The result of a finished stage whose outputs are there and are what they were; shards by their sizes, all others by content."""
    try:
        record = json.loads(storage.read_bytes(f"{one.url}.json"))
        files, there = record["result"].get("outputs", {}), storage.listing(one.url)
        lost = [name for name, file in files.items() if there.get(name) != file["size"]]
        lost = lost or [
            n
            for n, file in files.items()
            if not n.endswith(".tar") and storage.sha256(f"{one.url}/{n}") != file["sha256"]
        ]
        if record["key"] == one.key and not lost:
            return dict(record["result"]) | {"url": one.url}
        console.print(
            f"[yellow]{one.name} is done again: {', '.join(lost[:3]) or 'its record'} is not what it was",
            soft_wrap=True,
        )
    except FileNotFoundError:
        return None
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:  # but no StoreError: all may be there
        console.print(f"[yellow]{one.name} is done again: {error}", soft_wrap=True)
    return None


def finish(one: Stage) -> Result:
    """Do a stage in this process, unless it is done, or another process has just done it, and commit its record; its result."""
    from flows import stages

    with locked(one):
        if (done := found(one)) is not None:
            return done
        if one.work == "build" and f"{Path(one.url).name}.json" in storage.listing(
            f"{one.out}/stages"
        ):
            clear(one)  # a set with a part that is lost is no plan to go on with
        result = stages.WORKS[one.work](one.url, **one.arguments())
        record = {
            "key": one.key,
            "inputs": _each(one.inputs, "url", "digest"),
            "result": {"digest": storage.digest(result)} | result,
        }
        storage.write_json(f"{one.url}.json", record)
    return dict(record["result"]) | {"url": one.url}


def locked(one: Stage, patience: float = 7 * 24 * 3600) -> AbstractContextManager[None]:
    """No other process at this stage in the block."""
    return locks.exclusive(
        storage.locate(f"{one.out}/stages/.{one.name}-{one.key[:8]}"),
        "working on",
        patience=patience,
    )


def clear(one: Stage) -> None:
    """Remove a stage's folder and its record."""
    if not storage.is_remote(one.url):
        shutil.rmtree(one.url, ignore_errors=True)
    for url in (
        f"{one.url}.json",
        *(f"{one.url}/{name}" for name in storage.listing(one.url, deep=True)),
    ):
        with suppress(FileNotFoundError):
            storage.remove(url)


def status(out: str) -> list[Result]:
    """All stages below ``out``, the last worked on last: name, state, when it was finished or last saved, and what there is."""
    rows, place = list[tuple[float, Result]](), storage.locate(f"{out}/stages")
    for path in [path for path in place.iterdir() if path.name[0] != "."] if place.is_dir() else ():
        if path.suffix == ".json":
            seen, state, text = (
                path.stat().st_mtime,
                "finished",
                storage.read_json(path)["result"]["text"],
            )
        elif path.with_name(f"{path.name}.json").exists():
            continue
        else:
            saved = sorted(
                (one.stat().st_mtime, one.parent.name)
                for one in path.glob("**/checkpoints/step-*/manifest.json")
            )
            (seen, text), state = saved[-1] if saved else (0.0, ""), "unfinished"
        at = datetime.fromtimestamp(seen).isoformat(" ", "seconds") if seen else ""
        rows.append(
            (
                seen,
                {"stage": path.name.removesuffix(".json"), "state": state, "at": at, "text": text},
            )
        )
    return [row for _, row in sorted(rows, key=lambda pair: (pair[0], pair[1]["stage"]))]


def link(one: Stage) -> None:
    """Let the last stage of a name be found by that name, on a local disk."""
    if not storage.is_remote(one.out):
        link = Path(one.out, f".part-{one.name}-{os.getpid()}")
        link.unlink(missing_ok=True)  # of one that was killed and had our number
        link.symlink_to(Path("stages", Path(one.url).name))
        with suppress(IsADirectoryError):  # a folder of the user's has that name: it stays
            link.replace(Path(one.out, one.name))
        link.unlink(missing_ok=True)


def pieces(work: str, out: str, inputs: Result) -> list[Any]:
    """The parts of a stage that are not there yet, each for ``piece``; none where a stage has no parts."""
    there = {*storage.listing(out)}
    if work == "build" and "index.json" not in there:
        return missing(_plan(inputs), there)
    parts = ("train", "val") if work == "features" else ()
    return [[part, n] for part in parts for n in range(len(shards.open(inputs[part]).index.shards))]


def piece(work: str, out: str, inputs: Result, number: Any) -> None:
    """Do one of ``pieces``."""
    if work == "build":
        write_shard(_known_plan(out, json.dumps(inputs)), storage.locate(out), number)
        return
    from care.evaluate import extract
    from flows.stages import loaded

    encoder, data = loaded(inputs["encoder"], inputs["seed"]), shards.open(inputs[number[0]])
    # pieces are spread over the cores already
    extract(encoder, data, size=inputs["size"], cache=out, only=[number[1]], workers=0)


def _plan(inputs: Result) -> Plan:
    options = inspect.signature(make_plan).parameters.keys() & inputs.keys()
    source = images_of(inputs["source"], inputs.get("annotated", False), inputs.get("seed", 0))
    return make_plan(source, **{option: inputs[option] for option in options})


@cache
def _known_plan(_: str, inputs: str) -> Plan:  # of a folder, by a text, which can be looked up
    return _plan(json.loads(inputs))
