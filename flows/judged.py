"""An encoder judged by a protocol of ``care.evaluate``, and the record that its result leaves."""

import re
import statistics
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import shards
from care import ranks
from care.encoders import Encoder
from care.evaluate import Evaluation
from care.train import load_encoder
from care.train.checkpoint import digest_of
from care.train.launch import refuse_again
from shards import boxes, storage
from shards.progress import console


def loaded(source: str, seed: int) -> Encoder:
    """An encoder, on the GPU where there is one."""
    encoder = load_encoder(source, seed=seed)
    encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    return encoder


def labelled(train: str, val: str) -> tuple[Any, Any]:
    """Two open shard sets."""
    return shards.open(train), shards.open(val)


def annotated(train: str, val: str) -> tuple[Any, Any]:
    """Two annotated sets with the classes of the first; what of them is left out is said."""
    known = boxes.load(train)
    for data in (both := (known, boxes.load(val, classes=known.classes))):
        for reason, rejected in data.rejects.items():
            console.print(f"[yellow]{data.path}: {len(rejected):,} left out, {reason}, such as {rejected[0]}", soft_wrap=True)
    return both


def judged(
    verb: Callable[..., Evaluation], source: str, both: tuple[Any, Any], out: str | Path, *, seed: int = 0, trials: int = 1,
    start: Callable[[Path, int], None] | None = None, **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """The row of ``results.json`` that ``verb`` gives for an encoder, the mean of ``trials`` seeds; kept, with the runs, below ``out``.

    Args:
        verb: of ``care.evaluate``.
        source: the encoder, as ``care.train.load_encoder`` takes it.
        both: what to learn from and what to score.
        out: directory; the features of all evaluations in it are shared.
        seed: the first one.
        trials: seeds.
        start: trains a seed, the second argument, in the first one with other processes, which call this function without it.
        settings: keywords of ``verb``.
    """
    encoder = loaded(source, seed)
    digests = {"encoder": digest_of(encoder), **{part: data.digest for part, data in zip(("train", "val"), both, strict=True)}}
    takes, found = verb.__annotations__, list[dict[str, Any]]()
    settings = {name: value for name, value in settings.items() if value is not None}
    folder = Path(out, "-".join((verb.__name__, re.sub(r"[^\w.]+", "-", source).strip("-"), storage.digest([digests, settings])[:8])))
    for number in range(seed, seed + trials):
        run = folder / f"seed-{number}"
        if start:
            start(run, number)
            found.append(storage.read_json(run / "result.json"))
            continue
        refuse_again(run)
        places: dict[str, Any] = {"cache": Path(out, "features")} if "cache" in takes else {}
        places |= {"seed": number} if "seed" in takes else {}
        done = verb(encoder, *both, *([run] if "run" in takes else []), **places, **settings)
        settings |= done.chosen  # of the first seed: the others train with it
        found.append(done._asdict())
        if ranks.rank() == 0:
            storage.write_json(run / "result.json", found[-1])
    row = found[0] | {"encoder": source, "settings": settings, "digests": digests, "seed": seed, "trials": trials}
    for name in row.pop("measures"):
        values = [one["measures"][name] for one in found]
        row[name] = statistics.fmean(values)
        row |= {f"{name}_std": statistics.stdev(values)} if trials > 1 else {}
    row["versions"] = {"care": version("care-ssl"), "torch": torch.__version__, "torchvision": version("torchvision")}
    if ranks.rank() == 0:
        storage.write_json(folder / "results.json", {"title": f"{row['task']}: {source}", "evaluations": [row]})
    return row
