"""Caching by content: a stage is done when its record names the same inputs and its outputs are still what they were.

The record is a JSON file under ``stages/`` in the run directory, committed after the outputs, so a kill at any moment costs at
most the stage that was running. It does not need Prefect's server, database or result store.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from shards import storage

SCHEMA = 1


class Stage(NamedTuple):
    """A finished stage."""

    result: dict[str, Any]
    """JSON; its ``outputs`` are digests by path below the run directory."""
    cached: bool


def stage(out: Path, name: str, inputs: dict[str, Any], work: Callable[[], dict[str, Any]]) -> Stage:
    """The result of ``work()``, from its record where that has the same inputs and code and the outputs are intact.

    Args:
        out: run directory.
        name: of the stage, unique in the run.
        inputs: JSON values that decide the result, digests of input data among them.
        work: does the stage and returns its result; ``outputs`` maps each file that matters, relative to ``out``, to its sha256.
    """
    key = storage.digest([SCHEMA, name, inputs, code_version()])
    path = out / "stages" / f"{name}.json"
    if path.exists():
        record = storage.read_json(path)
        if record["key"] == key and all(_intact(out / file, digest) for file, digest in record["result"]["outputs"].items()):
            return Stage(record["result"], True)
    result = work()
    storage.write_json(path, {"key": key, "inputs": inputs, "result": result})
    return Stage(result, False)


@cache
def code_version() -> str:
    """Digest of this project's source: an edit runs the stages again, each from what its output folder holds, such as checkpoints."""
    sources = [
        path
        for package in ("shards", "care", "flows")
        for path in Path(str(files(package))).rglob("*.[pj]*")
        if path.suffix in (".py", ".j2")
    ]
    return storage.digest(sorted([path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in sources))


def _intact(path: Path, digest: str) -> bool:
    return path.is_file() and storage.sha256(path) == digest
