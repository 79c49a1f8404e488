"""How the process of a stage ended, and the lines by which it tells the one that started it.

Such a line stands among those that the process prints. Writing and reading are side by side here,
as are the exception that ends a stage over there and the one that is raised for it here.
Tests: ``tests/flows/test_supervise.py``.
"""

import json
import traceback
from typing import Literal, NamedTuple
from shards.errors import Failure, Misuse, Stopped, StoreError

State = Literal["done", "stopped", "died", "hung", "store", "usage", "failed", "bug"]
# what another attempt may mend; nobody asked such a process to stop
RETRIED: frozenset[State] = frozenset({"stopped", "died", "hung", "store"})
STOPPED_EARLY = "stopped on request; the same command continues"
_MARK = "\x1e"  # begins these lines and no others


class Outcome(NamedTuple):
    """How a stage ended.

    Attributes:
        state: done, or by what it was ended.
        message: what there is to say about it; of a bug the traceback.
    """

    state: State
    message: str


def format_pid(pid: int) -> str:
    """The line by which a process tells its number."""
    return _MARK + json.dumps(pid)


def format_outcome(outcome: Outcome) -> str:
    """The line by which a process tells how its stage ended."""
    return _MARK + json.dumps(outcome)


def parse_line(text: str) -> int | Outcome | None:
    """Read back what the two above wrote; None of any other line."""
    if not text.startswith(_MARK):
        return None
    content = json.loads(text.removeprefix(_MARK))
    return content if isinstance(content, int) else Outcome(*content)


def outcome_of(error: BaseException) -> Outcome:
    """What an exception makes of the stage that it ended."""
    match error:
        case Stopped() | KeyboardInterrupt():
            kept = "stopped on request; finished work is kept, the same command continues"
            return Outcome("stopped", str(error) or kept)
        case StoreError():
            return Outcome("store", str(error))
        case Misuse():
            return Outcome("usage", str(error))
        case Failure() | OSError():
            return Outcome("failed", str(error))
        case _:
            return Outcome("bug", "".join(traceback.format_exception(error)))


def error_of(outcome: Outcome) -> Exception:
    """The exception that says of a stage elsewhere how it ended."""
    match outcome.state:
        case "usage":
            return Misuse(outcome.message)
        case "bug":
            return RuntimeError(outcome.message)
        case _:
            return Failure(outcome.message)
