"""How far a training is, from the files of its run directory alone, which may be at a URL."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from care.errors import CareError
from care.train.mirror import recorded_manifest
from care.train.run_log import LOSSES, TIMING
from care.train.run_status import STATUS
from shards import ShardError, locks, storage
from shards.misspelt import suggestion

# steps over which the rate is measured
RECENT = 50
# states in which nothing more is to come
ENDED = ("done", "stopped", "failed", "killed")


class RunProgress(NamedTuple):
    """How far a training is.

    Attributes:
        state: ``running``, ``done``, ``stopped``, ``failed``, or ``killed`` where the process is
            gone without a word; "" of a run that left none.
        message: why, in the run's own words.
        steps: that were taken.
        total: length of the run, None where neither its word nor a checkpoint tells it.
        images_per_second: over the last steps; None likewise, and before the second step.
        data_wait: share of that time that was spent waiting for data.
        seconds_left: until the end at that rate.
        figures: values by name over the steps that have one.
    """

    state: str
    message: str
    steps: int
    total: int | None
    images_per_second: float | None
    data_wait: float | None
    seconds_left: float | None
    figures: dict[str, list[float]]

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is to come."""
        return self.state in ENDED


class RunFollower:
    """Reads a run again and again, of its logs only what is new.

    Args:
        run: run directory or URL.

    Raises:
        CareError: There is no training.
    """

    def __init__(self, run: str | Path) -> None:
        self._run = str(run).rstrip("/")
        self._losses = _LogFile(f"{self._run}/{LOSSES}")
        self._timing = _LogFile(f"{self._run}/{TIMING}")
        _check_run(self._run)

    def look(self) -> RunProgress:
        """How far the run is now."""
        status = _status_of(self._run)
        sizes = storage.listing(self._run)
        losses = self._losses.rows(sizes.get(LOSSES, 0))
        timing = self._timing.rows(sizes.get(TIMING, 0))
        manifest = recorded_manifest(self._run)
        steps = len(losses)
        total = status.get("steps")
        batch_size = status.get("batch_size")
        if total is None and manifest is not None:
            batch_size = manifest["settings"]["batch_size"]
            total = manifest["settings"]["steps"] + manifest.get("offset", 0)
        is_over = total is not None and steps >= total
        pace = _pace_of(timing[-RECENT:])
        seconds_left = rate = None
        if pace is not None:
            rate = batch_size and batch_size / pace.seconds_per_step
            seconds_left = total and (total - steps) * pace.seconds_per_step
        return RunProgress(
            state=self._state(status.get("state", ""), is_over=is_over),
            message=status.get("message", ""),
            steps=steps,
            total=total,
            images_per_second=rate,
            data_wait=None if pace is None else pace.data_wait,
            seconds_left=seconds_left,
            figures=_figures_of(losses),
        )

    def _state(self, word: str, *, is_over: bool) -> str:
        """The state of a run by its own word, which a process that was killed has not corrected.

        In an object store nobody knows of a process whether it is there.
        """
        is_gone = is_over if storage.is_remote(self._run) else not locks.is_held(self._run)
        if word != "running" or not is_gone:
            return word
        return "done" if is_over else "killed"


class _Pace(NamedTuple):
    """How fast the last steps were."""

    seconds_per_step: float
    data_wait: float


class _LogFile:
    """A log of JSON lines, which grows, or is begun anew where a run goes on."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._read = 0
        self._rows: list[dict[str, Any]] = []

    def rows(self, size: int) -> list[dict[str, Any]]:
        """All whole lines so far of a file that has so many bytes, 0 of none."""
        if size < self._read or not self._take(size):
            self._read, self._rows = 0, []
            self._take(size)
        return self._rows

    def _take(self, size: int) -> bool:
        """Add what was written since, and say whether it goes on from what was read before."""
        if size == self._read:
            return True
        new = storage.read_bytes(self._path, self._read, size)
        complete = new[: new.rfind(b"\n") + 1]
        try:
            rows = [json.loads(line) for line in complete.splitlines()]
        except ValueError:
            return False
        steps = [row["step"] for row in rows]
        if steps != list(range(len(self._rows), len(self._rows) + len(rows))):
            return False
        self._rows += rows
        self._read += len(complete)
        return True


def _check_run(run: str) -> None:
    """Refuse what is no run directory.

    Raises:
        CareError: It is not there, or another folder.
    """
    names = storage.listing(run)
    if {LOSSES, f"{STATUS}.json"} & names.keys():
        return
    folder = storage.locate(run)
    if names or folder.exists():
        hint = f"; of a pipeline: care pipeline status {run}, or its run {run}/pretrain"
        raise CareError(f"wanted the RUN of a training, got {run} without {LOSSES}{hint}")
    raise CareError(
        f"{run} does not exist; wanted the RUN of a training, such as care pretrain's"
        f"{suggestion(run)}"
    )


def _status_of(run: str) -> dict[str, Any]:
    """The word that the run has left, which is written anew now and then."""
    with suppress(FileNotFoundError, ShardError):
        status: dict[str, Any] = storage.read_json(f"{run}/{STATUS}.json")
        return status
    return {}


def _pace_of(timing: Sequence[Mapping[str, float]]) -> _Pace | None:
    """The pace of the last call's steps among some, or None of fewer than two."""
    last_call = list[Mapping[str, float]]()
    for row in timing:
        if last_call and row["seconds"] < last_call[-1]["seconds"]:
            last_call = []  # the clock begins anew with each call
        last_call.append(row)
    if len(last_call) < 2:
        return None
    first, last = last_call[0], last_call[-1]
    seconds = max(last["seconds"] - first["seconds"], 1e-9)
    waited = last["data_wait"] - first["data_wait"]
    return _Pace(seconds / (len(last_call) - 1), waited / seconds)


def _figures_of(losses: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The values of each number of a log, in the order in which they first come."""
    figures = dict[str, list[float]]()
    for row in losses:
        for name, value in row.items():
            if name != "step":
                figures.setdefault(name, []).append(value)
    return figures
