"""Places of stages on a cluster: so many at a time, each with a seat that the next one may take."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from flows.cluster.room import Share
from flows.cluster.seats import Seats


class Places:
    """Equal places, of which a stage takes one.

    A seat needs seconds to import everything: whoever has waited for a place takes over the seat
    of who left it. Nobody keeps one without need, since a group of processes may wait for room.

    Args:
        seats: of the run.
        share: of a node, that each has.
        number: of the places.
    """

    def __init__(self, seats: Seats, share: Share, number: int) -> None:
        self._seats = seats
        self._share = share
        self._free = threading.BoundedSemaphore(number)
        self._lock = threading.Lock()
        self._waiting = 0
        self._vacated = list[Any]()

    @contextmanager
    def taken(self) -> Iterator[Any]:
        """Wait for a place, and have its seat for the length of the block."""
        with self._lock:
            self._waiting += 1
        with self._free:
            with self._lock:
                self._waiting -= 1
                seat = self._vacated.pop() if self._vacated else self._seats.open(self._share)
            try:
                yield seat
            finally:
                self._leave(seat)

    def _leave(self, seat: Any) -> None:
        """Leave a seat to who waits for one, if it does what it is asked, or close it."""
        with self._lock:
            is_wanted = len(self._vacated) < self._waiting
            if is_wanted and self._seats.is_well(seat):
                self._vacated.append(seat)
                return
        self._seats.close(seat)
