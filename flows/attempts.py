"""Attempts at a stage: what another one may mend is tried again after a pause."""

import threading
from collections.abc import Callable
from flows.outcomes import RETRIED, STOPPED_EARLY, Outcome, error_of
from shards.errors import Stopped

RETRY_PAUSES = (2.0, 10.0, 30.0)  # seconds before a stage is tried again

Tell = Callable[[str], None]


def try_until_done(attempt: Callable[[], Outcome], stopping: threading.Event, tell: Tell) -> None:
    """Attempt something until it is done, or until another attempt would not mend it.

    Args:
        attempt: tells how it ended.
        stopping: is set when nothing is to be attempted any more.
        tell: is given a line before each attempt but the first.

    Raises:
        Stopped: ``stopping`` was set.
        Misuse: Its settings are out of range, or do not go together.
        Failure: It failed, or did not end well in any attempt.
        RuntimeError: A bug ended it; the traceback is its message.
    """
    pauses = iter(RETRY_PAUSES)
    while True:
        outcome = attempt()
        if outcome.state == "done":
            return
        if outcome.state == "stopped":
            # a Ctrl-C may have reached it before us
            stopping.wait(0.5)
        if stopping.is_set():
            was_stopped = outcome.state == "stopped"
            raise Stopped(outcome.message if was_stopped else STOPPED_EARLY)
        pause = next(pauses, None)
        if pause is None or outcome.state not in RETRIED:
            raise error_of(outcome)
        tell(f"{outcome.message}; trying again in {pause:g} s")
        stopping.wait(pause)
