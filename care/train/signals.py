"""Requests to stop: signals that wait until a step is done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM for the length of the block instead of dying of them.

    Python handles signals in the main thread alone: in any other thread none arrives here.

    Yields:
        The numbers of the signals that have come. It is a list because the lock of an Event would
        meet itself in a second signal.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def receive(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    handlers_before = {number: signal.signal(number, receive) for number in STOPPING}
    try:
        yield received
    finally:
        for number, handler in handlers_before.items():
            signal.signal(number, handler)
