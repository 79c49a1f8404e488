"""Caching by content: a stage is done when its record names the same inputs and its outputs are still what they were.

The record is a JSON file under ``stages/`` in the run directory, committed after the outputs, so a kill at any moment costs at
most the stage that was running. It does not need Prefect's server, database or result store.
"""

import hashlib
from collections.abc import Callable
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from flows.tables import Result
from shards import storage


class Stage(NamedTuple):
    """A finished stage."""

    result: Result
    cached: bool


def do(out: str, work: Callable[..., Result], /, *names: str, **inputs: Any) -> Result:
    """The result of the stage ``work(out, **inputs)``, as a Prefect task; the stages of one function differ in ``names``."""
    named = (work.__name__, *names)
    shown = _recorded.with_options(name=work.__name__, task_run_name=" ".join(named))
    # return_state: called plainly, a task that returned a state gives that state, not its data
    result: Result = shown(out, "-".join(named), work, inputs, return_state=True).result()
    return result


@task(cache_policy=NO_CACHE)  # the record is the cache
def _recorded(out: str, name: str, work: Callable[..., Result], inputs: dict[str, Any]) -> Any:
    done = stage(Path(out), name, inputs, partial(work, out, **inputs))
    return Completed(name="Cached" if done.cached else "Completed", data=done.result)


def stage(out: Path, name: str, inputs: dict[str, Any], work: Callable[[], Result]) -> Stage:
    """The result of ``work()``, from its record where that has the same inputs and code and the outputs are intact.

    Args:
        out: run directory.
        name: of the stage, unique in the run.
        inputs: JSON values that decide the result, digests of input data among them.
        work: does the stage and returns its result; ``outputs`` maps each file that matters, relative to ``out``, to its sha256.
    """
    key = storage.digest([name, inputs, code_version()])
    path = out / "stages" / f"{name}.json"
    if path.exists():
        record = storage.read_json(path)
        outputs = record["result"].get("outputs", {})
        if record["key"] == key and all((out / file).is_file() and storage.sha256(out / file) == sha for file, sha in outputs.items()):
            return Stage(record["result"], True)
    result = work()
    storage.write_json(path, {"key": key, "inputs": inputs, "result": result})
    return Stage(result, False)


@cache
def code_version() -> str:
    """Digest of this project's source: an edit runs the stages again, each from what its output folder holds, such as checkpoints."""
    paths = [path for package in ("shards", "care", "flows") for path in Path(str(files(package))).rglob("*.[pj]*")]
    sources = [path for path in paths if path.suffix in (".py", ".j2")]
    return storage.digest(sorted([path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in sources))
