"""What is finished: a stage's record names its inputs and outputs and is committed after these.

``OUT/stages/NAME-KEY.json`` is the record of what the folder ``OUT/stages/NAME-KEY`` holds. The key
is a digest of all that decides the result: experiments, and machines with one bucket, share what is
equal between them, and nothing is written over. The records are the cache, wherever they lie.
"""

import json
import os
import shutil
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from flows.identity import code_digest, input_identity
from flows.result import Result
from flows.works import run_work
from shards import locks, storage
from shards.progress import warn
from shards.seals import is_as_sealed, sealed

SCHEMA = 2
# inputs that decide no result
FREE_INPUTS = {
    "cache",
    "workers",
    "nproc",
    "recompute",
    "checkpoint_every",
    "keep_every",
    "max_rejects",
}
SECONDS_FOR_ANOTHER = 7 * 24 * 3600.0  # that a process waits for another one at the same stage


class KeyedStage(NamedTuple):
    """A stage whose inputs are there, so that it has a key.

    Attributes:
        out: folder of the pipeline, path or URL.
        name: of the stage; with the key it is unique below ``out``.
        work: what is done, a name in ``flows.works.WORKS``.
        inputs: by name JSON, or the result of another stage: of it the digest counts, and the work
            is given the ``url``.
        key: digest of all that decides the result.
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
        """What the work is called with beside its folder."""
        return dict(_with_fields(self.inputs, "url"))


def key_stage(out: str, name: str, work: str, inputs: Result) -> KeyedStage:
    """A stage with its key: of schema, work, code, and what the inputs are.

    Args:
        out: folder of the pipeline, path or URL.
        name: of the stage.
        work: a name in ``flows.works.WORKS``.
        inputs: of the work; what is in ``FREE_INPUTS`` does not count.
    """
    deciding = {
        part: input_identity(part, value, inputs)
        for part, value in _with_fields(inputs, "digest").items()
        if part not in FREE_INPUTS
    }
    key = storage.digest([SCHEMA, work, code_digest(work, inputs.get("verb")), deciding])
    return KeyedStage(str(out).rstrip("/"), name, work, inputs, key)


def _with_fields(value: Any, *fields: str) -> Any:
    """JSON with one field, or several by name, in the place of each result in it."""
    if not isinstance(value, dict):
        return value
    if {"url", "digest"} <= value.keys():
        return value[fields[0]] if len(fields) == 1 else {field: value[field] for field in fields}
    return {name: _with_fields(part, *fields) for name, part in value.items()}


def finished_result(stage: KeyedStage) -> Result | None:
    """The result of a finished stage whose outputs are there and are what they were.

    Shards are compared by their sizes, all other outputs by content. What is not what it was is
    told: it will be done again.

    Raises:
        StoreError: The store does not answer; all may be there.
    """
    try:
        record = json.loads(storage.read_bytes(f"{stage.url}.json"))
        lost = _lost_outputs(stage.url, record["result"].get("outputs", {}))
        if record["key"] == stage.key and is_as_sealed(record) and not lost:
            return dict(record["result"]) | {"url": stage.url}
        what = ", ".join(lost[:3]) or "its record"
        _tell_again(stage, f"{what} is not what it was")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _tell_again(stage, str(error))
    return None


def _lost_outputs(url: str, outputs: Result) -> list[str]:
    """Names of outputs that are not what they were, first by size alone."""
    sizes = storage.listing(url, deep=any("/" in name for name in outputs))
    lost = [name for name, file in outputs.items() if sizes.get(name) != file["size"]]
    if lost:
        return lost
    read = [name for name in outputs if not name.endswith(".tar")]
    return [name for name in read if storage.sha256(f"{url}/{name}") != outputs[name]["sha256"]]


def _tell_again(stage: KeyedStage, why: str) -> None:
    warn(f"{stage.name} is done again: {why}")


def finish(stage: KeyedStage) -> Result:
    """Do a stage in this process and commit its record, unless it is done by now.

    Returns:
        Its result, with the ``url`` of its folder.
    """
    with locked(stage):
        finished = finished_result(stage)
        if finished is not None:
            return finished
        records = storage.listing(f"{stage.out}/stages")
        if stage.work == "build" and f"{Path(stage.url).name}.json" in records:
            clear(stage)  # a set with a part that is lost is no plan to go on with
        result = run_work(stage.work, stage.url, stage.arguments())
        result = {"digest": storage.digest(result)} | result
        record = {
            "key": stage.key,
            "inputs": _with_fields(stage.inputs, "url", "digest"),
            "result": _with_tables(stage.work, result),
        }
        storage.write_json(f"{stage.url}.json", sealed(record))
    return dict(record["result"]) | {"url": stage.url}


def _with_tables(work: str, result: Result) -> Result:
    """The result of an evaluation with its rows as Markdown, for who looks at Prefect's UI."""
    if work != "judge":
        return result
    from care.show import as_markdown, compared  # imports torch, as the work has done

    return result | {"markdown": as_markdown(compared(result["rows"]))}


def locked(
    stage: KeyedStage, patience: float = SECONDS_FOR_ANOTHER
) -> AbstractContextManager[object]:
    """No other process at this stage in the block.

    Args:
        stage: to lock.
        patience: seconds to wait for another process.
    """
    lock = storage.locate(f"{stage.out}/stages/.{stage.name}-{stage.key[:8]}")
    return locks.exclusive(lock, "working on", patience=patience)


def clear(stage: KeyedStage) -> None:
    """Remove a stage's folder and its record."""
    if not storage.is_remote(stage.url):
        shutil.rmtree(stage.url, ignore_errors=True)
    files = [f"{stage.url}/{name}" for name in storage.listing(stage.url, deep=True)]
    for url in (f"{stage.url}.json", *files):
        with suppress(FileNotFoundError):
            storage.remove(url)


def link(stage: KeyedStage) -> None:
    """Let the last stage of a name be found by that name, on a local disk."""
    if storage.is_remote(stage.out):
        return
    link = Path(stage.out, f".part-{stage.name}-{os.getpid()}")
    link.unlink(missing_ok=True)  # of one that was killed and had our number
    link.symlink_to(Path("stages", Path(stage.url).name))
    with suppress(IsADirectoryError):  # a folder of the user's has that name: it stays
        link.replace(Path(stage.out, stage.name))
    link.unlink(missing_ok=True)
