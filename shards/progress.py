"""Progress of long work: a rich bar with rate and ETA on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

console = Console(stderr=True, highlight=False)
PLAIN_SECONDS = 10.0  # between two plain lines


@contextmanager
def progress(title: str, total: int, *, start: int = 0) -> Iterator[Callable[[int, str], None]]:
    """Yield ``advance(n, note="")``: ``n`` of ``total`` images more are done (``start`` before), ``note`` is shown beside the rate."""
    done, began = start, time.monotonic()
    last, columns = began, (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), "{task.fields[status]}")
    bar = Progress("{task.description}", *columns, console=console, disable=not console.is_terminal)
    task = bar.add_task(title, total=total, completed=start, status="")

    def advance(n: int, note: str = "") -> None:
        nonlocal done, last
        done, now = done + n, time.monotonic()
        rate = (done - start) / max(now - began, 1e-9)
        status = f"{rate:,.{0 if rate >= 10 else 2}f} img/s {note}".rstrip()
        if console.is_terminal:
            bar.update(task, completed=done, status=status)
        elif now - last >= PLAIN_SECONDS or done >= total:
            last = now
            eta = (total - done) * (now - began) / max(done - start, 1)
            print(f"{title}: {done}/{total}, {status}, ETA {eta:.0f} s", file=sys.stderr, flush=True)

    with bar:
        yield advance
