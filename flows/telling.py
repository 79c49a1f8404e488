"""Where the lines go that the processes of stages print: to Prefect's log, the console, bars."""

import logging
from typing import Any
from rich.progress import TaskID
from flows.prefect_view import PrefectView, ProgressArtifact
from shards.progress import Bars, ProgressLine, parse_progress, say


class Teller:
    """Tells the lines of a stage: to Prefect's log, if that shows them, else here.

    Progress is a bar on a terminal, and an artifact in Prefect's UI.

    Args:
        name: of the stage.
        bars: of all stages.
        view: of Prefect's UI.
        log: Prefect's logger of the stage's task, or None.
    """

    def __init__(self, name: str, bars: Bars, view: PrefectView, log: Any) -> None:
        self._name = name
        self._bars = bars
        self._log = log
        self._artifact = ProgressArtifact(view, name)
        self._bar: TaskID | None = None

    def __call__(self, text: str) -> None:
        """Tell a line.

        Args:
            text: of it; lines without any are not told.
        """
        if not text.strip():
            return
        line = parse_progress(text)
        if line and self._log:
            self._artifact.update(line, text)
        if line and self._bars.live.is_started:
            self._move_bar(line)
        elif self._log and self._log.isEnabledFor(logging.INFO):
            self._log.info(text)
        else:
            say(f"{self._name}: {text}")

    def _move_bar(self, line: ProgressLine) -> None:
        if self._bar is None:
            self._bar = self._bars.add_task("", total=line.total, status="")
        self._bars.update(
            self._bar,
            description=f"{self._name}: {line.title}",
            completed=line.completed,
            total=line.total,
            status=line.status,
        )
        if line.completed >= line.total:
            self._bars.remove_task(self._bar)
            self._bar = None
