"""How far the stages below a folder are, from its files alone."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple
from flows.intentions import intended
from shards import storage


class StageState(NamedTuple):
    """How far a stage is.

    Attributes:
        stage: its name and the beginning of its key; without this where it is not known yet.
        state: "finished", "unfinished" or "to come".
        at: when it was finished or last saved, ISO 8601; "" if never.
        text: what there is.
    """

    stage: str
    state: str
    at: str
    text: str

    @property
    def name(self) -> str:
        """Without the key."""
        return self.stage.rpartition("-")[0]


def stage_states(out: str, *, everything: bool = False) -> list[StageState]:
    """The stages below a folder, the last worked on last, then those that are still to come.

    Args:
        out: folder of a pipeline, path or URL.
        everything: also those of earlier settings, not only the last run's or else the newest of
            each name.
    """
    folder = storage.locate(f"{out}/stages")
    dated = [*_dated_states(folder)] if folder.is_dir() else []
    states = [state for _, state in sorted(dated, key=lambda pair: (pair[0], pair[1].stage))]
    folders = intended(out)
    begun = {state.stage for state in states}
    coming = [name for name, folder in folders.items() if folder not in begun]
    if not everything:
        newest = {state.name: state.stage for state in states}
        shown = newest | folders
        states = [state for state in states if state.stage == shown[state.name]]
    return states + [StageState(folders[name] or name, "to come", "", "") for name in coming]


def _dated_states(folder: Any) -> Iterator[tuple[float, StageState]]:
    """The states of what is in a folder of stages, each after the time it was last worked on."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.suffix == ".json":
            yield _finished(path)
        elif not path.with_name(f"{path.name}.json").exists():
            yield _unfinished(path)


def _finished(record: Any) -> tuple[float, StageState]:
    """When a record was written, and what it says."""
    time = record.stat().st_mtime
    text = storage.read_json(record)["result"]["text"]
    return time, StageState(record.name.removesuffix(".json"), "finished", _iso(time), text)


def _unfinished(folder: Any) -> tuple[float, StageState]:
    """When the folder of a stage without a record last had a checkpoint, and which."""
    manifests = folder.glob("**/checkpoints/step-*/manifest.json")
    saved = [(manifest.stat().st_mtime, manifest.parent.name) for manifest in manifests]
    time, text = max(saved, default=(0.0, ""))
    return time, StageState(folder.name, "unfinished", _iso(time) if time else "", text)


def _iso(time: float) -> str:
    return datetime.fromtimestamp(time).isoformat(" ", "seconds")
