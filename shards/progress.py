"""What is seen of long work: a bar on a terminal, else plain lines that another process can parse.

The format of such a line and its parser stand side by side, since a stage of the pipeline prints
what the process that started it reads.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.text import Text
from shards.printable import printable

console = Console(stderr=True, highlight=False)
# between two plain lines; a parent process that draws bars asks for more of them
SECONDS_BETWEEN_LINES = float(os.environ.get("CARE_PROGRESS_SECONDS", "10"))
# between two states of a bar, of which each takes as long as a small image
_SECONDS_BETWEEN_STATES = 0.1


def say(text: str, colour: str = "") -> None:
    """Print a line on stderr in which names are names: no markup, and nothing that is not seen.

    Args:
        text: as it is to be read; a line end in it is written as one.
        colour: of the line on a terminal.
    """
    console.print(Text(printable(text, keep="\t"), style=colour), soft_wrap=True)


def warn(text: str) -> None:
    """Print a line on stderr that somebody should read, as ``say`` does."""
    say(text, "yellow")


class ProgressLine(NamedTuple):
    """How far a piece of long work is, as one line of text says it.

    Attributes:
        title: what is being done.
        completed: images that are done.
        total: images that there are to do.
        status: the rate in images a second, and perhaps a note.
        seconds_left: estimate of the time to the end.
    """

    title: str
    completed: int
    total: int
    status: str
    seconds_left: float


def format_progress(line: ProgressLine) -> str:
    """The text of a line, such as ``building: 20/100, 5.00 img/s, ETA 16 s``."""
    count = f"{line.completed}/{line.total}"
    return f"{line.title}: {count}, {line.status}, ETA {line.seconds_left:.0f} s"


def parse_progress(text: str) -> ProgressLine | None:
    """Read back what ``format_progress`` wrote.

    Args:
        text: one line without its end.

    Returns:
        The line, or None if the text is another one.
    """
    match = re.fullmatch(r"(.+): (\d+)/(\d+), (.*), ETA (\d+) s", text)
    if match is None:
        return None
    title, completed, total, status, seconds_left = match.groups()
    return ProgressLine(title, int(completed), int(total), status, float(seconds_left))


class Bars(Progress):
    """Bars of work on a terminal, each with its count and time left; below it what it says.

    On one line of 80 columns the rate and a few losses would leave no room for the bar. Tasks have
    a field "status", which is "" where there is nothing to say.

    Args:
        transient: whether they vanish at the end.
    """

    def __init__(self, *, transient: bool = False) -> None:
        super().__init__(
            "{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=transient,
        )

    def get_renderables(self) -> Iterator[RenderableType]:
        """Each task's bar, and its status below it."""
        for task in self.tasks:
            yield self.make_tasks_table([task])
            if task.fields["status"]:
                yield Padding(Text(printable(task.fields["status"]), style="dim"), (0, 0, 0, 2))


@contextmanager
def progress(
    title: str, total: int | None, *, start: int = 0
) -> Iterator[Callable[[int, str], None]]:
    """Show the progress of the block on stderr.

    Args:
        title: what is being done.
        total: images that there are to do; None: nobody knows.
        start: images that were done before; they do not count in the rate.

    Yields:
        ``advance(count, note="")``, to be called when ``count`` more images are done; the note is
        shown beside the rate.
    """
    completed = start
    began = time.monotonic()
    last_line = began
    next_state = began
    bar = Bars()
    task = bar.add_task(title, total=total, completed=start, status="")

    def advance(count: int, note: str = "") -> None:
        """Count some images, and show or print how far it is."""
        nonlocal completed, last_line, next_state
        completed += count
        now = time.monotonic()
        is_last = total is not None and completed >= total
        if now < next_state and not is_last:
            return
        next_state = now + min(_SECONDS_BETWEEN_STATES, SECONDS_BETWEEN_LINES)
        elapsed = max(now - began, 1e-9)
        rate = (completed - start) / elapsed
        decimals = 0 if rate >= 10 else 2
        status = f"{rate:,.{decimals}f} img/s {note}".rstrip()
        bar.update(task, completed=completed, status=status)
        if console.is_terminal:
            return
        if total is None:
            if now - last_line >= SECONDS_BETWEEN_LINES:
                last_line = now
                print(f"{title}: {completed}, {status}", file=sys.stderr, flush=True)
        elif now - last_line >= SECONDS_BETWEEN_LINES or is_last:
            last_line = now
            seconds_left = (total - completed) * elapsed / max(completed - start, 1)
            line = ProgressLine(title, completed, total, status, seconds_left)
            print(format_progress(line), file=sys.stderr, flush=True)

    with bar:
        yield advance
