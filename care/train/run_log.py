"""The log of a run: a line of numbers and a line of times for each step, and the progress."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO
from care.train.position import Position
from shards import storage
from shards.progress import progress

LOSSES = "losses.jsonl"
TIMING = "timing.jsonl"
# what is told of each step by the process that writes: its number, and its numbers by name
OnStep = Callable[[int, Mapping[str, float]], None]


class RunLog:
    """Writes what each step was, always whole lines.

    Args:
        losses: the open file of the numbers, which are the same whenever the step is taken.
        timing: that of the times, which are not.
        advance: moves what is seen of the progress.
        batch_size: images a step.
        on_step: is told of each step, too.
    """

    def __init__(
        self,
        losses: TextIO,
        timing: TextIO,
        advance: Callable[[int, str], None],
        batch_size: int,
        on_step: OnStep | None = None,
    ) -> None:
        self._losses = losses
        self._timing = timing
        self._advance = advance
        self._batch_size = batch_size
        self._began = time.monotonic()
        self._on_step = on_step
        self._last_seconds = 0.0

    def write(self, step: int, numbers: Mapping[str, float], waited: float, note: str) -> None:
        """Add a step.

        Args:
            step: its number, from 0 on.
            numbers: losses and whatever else there is, by name.
            waited: seconds since the start that were spent waiting for data.
            note: is shown beside the progress.
        """
        seconds = time.monotonic() - self._began
        timing = {"step": step, "seconds": round(seconds, 3), "data_wait": round(waited, 3)}
        self._losses.write(json.dumps({"step": step, **numbers}) + "\n")
        self._timing.write(json.dumps(timing) + "\n")
        self._advance(self._batch_size, f"{note} data_wait {100 * waited / seconds:.0f} %")
        if self._on_step is not None:
            rate = self._batch_size / max(seconds - self._last_seconds, 1e-9)
            times = {"images_per_second": rate, "data_wait": waited / seconds}
            self._on_step(step, {**numbers, **times})
        self._last_seconds = seconds


@contextmanager
def opened_log(
    folder: Path,
    title: str,
    *,
    position: Position,
    steps: int,
    batch_size: int,
    on_step: OnStep | None = None,
) -> Iterator[RunLog]:
    """Go on with the logs of a run, without the lines of steps that will be done again.

    Args:
        folder: local run directory.
        title: is shown beside the progress.
        position: how far the run is.
        steps: length of the run.
        batch_size: images a step.
        on_step: is told of each step, too.
    """
    with ExitStack() as stack:
        files = []
        for name in (LOSSES, TIMING):
            path = folder / name
            lines = path.read_text().splitlines(keepends=True) if path.exists() else []
            storage.write_bytes(path, "".join(lines[: position.taken]).encode())
            files.append(stack.enter_context(path.open("a", buffering=1)))
        losses, timing = files
        bar = progress(title, steps * batch_size, start=position.start * batch_size)
        yield RunLog(losses, timing, stack.enter_context(bar), batch_size, on_step)
