"""Leases of folders in object stores, which have no locks.

Whoever has written the highest object ``.lease/GENERATION`` owns the folder, and rewrites it all
the time. Who has seen it unchanged for ``LEASE_SECONDS`` takes its writer for dead and creates the
next generation, which a store lets only one do. Clocks are not compared.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple
from shards import objects, storage
from shards.errors import ShardError, StoreError
from shards.progress import say, warn

# a holder that could not renew its lease for so long may be followed; it tries four times as often
LEASE_SECONDS = 20.0


@contextmanager
def leased(folder: str, busy: ShardError, deadline: float) -> Iterator[Callable[[], None]]:
    """Hold the lease of a folder for the length of the block.

    If another process takes the folder over meanwhile, stderr says so at once, and an error at the
    end of the block. While the store is not reached, nobody knows; once it is again, a lease that
    nobody took goes on.

    Args:
        folder: its URL, without a slash at the end.
        busy: what to raise if another process holds it.
        deadline: until when to wait for that, by ``time.monotonic()``.

    Yields:
        What raises a ``ShardError`` if another process has taken the folder over, and a
        ``StoreError`` if nobody knows, for those who are about to write there after a while.

    Raises:
        ShardError: ``busy``, or the folder was taken over, or the store is not reached at the end.
    """
    lease = _Lease(folder)
    lease.acquire(busy, deadline)
    thread = threading.Thread(target=lease.renew_until_ended, daemon=True)
    thread.start()
    try:
        lease.remove_older()
        yield lease.check
    finally:
        lease.ended.set()
        thread.join()
        doubt = lease.doubt()
        if doubt is None:
            lease.release()
    if doubt is not None:
        raise doubt


def wait_for_holder(seconds: float, busy: ShardError) -> None:
    """Sleep, and once a minute say for what."""
    time.sleep(seconds)
    if time.monotonic() % 60 < seconds:
        say(f"waiting: {busy}")


class _Generation(NamedTuple):
    """The newest lease of a folder.

    Attributes:
        number: 0 if there is none.
        content: the token of its holder and a time, which changes whenever it is renewed.
    """

    number: int
    content: str


class _Lease:
    """One process's hold of a folder.

    Attributes:
        ended: set when it is no longer to be renewed.
    """

    def __init__(self, folder: str) -> None:
        self.ended = threading.Event()
        self._folder = folder
        self._is_taken = False
        self._was_unreached = False
        self._prefix = f"{folder}/.lease"
        self._token = uuid.uuid4().hex
        self._url = ""
        self._renewed = 0.0

    def acquire(self, busy: ShardError, deadline: float) -> None:
        """Wait until nobody holds the folder, or a holder is dead, and create the next generation.

        A holder is dead when its lease has not changed for ``LEASE_SECONDS``.

        Raises:
            ShardError: ``busy``, if a holder lives at the deadline.
        """
        seen: _Generation | None = None
        seen_since = 0.0
        while not self._is_ours(newest := self._newest()):
            now = time.monotonic()
            if newest != seen:
                lives = newest.number > 0 and seen is not None
                if lives and now >= deadline:
                    raise busy
                seen = newest
                seen_since = now
            if newest.number > 0 and now - seen_since <= LEASE_SECONDS:
                wait_for_holder(LEASE_SECONDS / 20, busy)
                continue
            self._url = f"{self._prefix}/{newest.number + 1:08}"
            self._renewed = now
            with suppress(FileExistsError):  # another was faster
                self._put("create")

    def renew_until_ended(self) -> None:
        """Rewrite the lease until another process has taken it or ``ended`` is set, in a thread."""
        was_unreached = False
        while not self.ended.wait(LEASE_SECONDS / 4):
            self._renew()
            if self._is_taken:
                say(self._loss(), "red")
                break
            is_unreached = self._seconds_unreached() > LEASE_SECONDS
            if is_unreached and not was_unreached:
                warn(
                    f"{self._folder} was not reached for {LEASE_SECONDS:g} s; if it is again, and "
                    "nobody took it over, all goes on"
                )
            elif was_unreached and not is_unreached:
                say(f"{self._folder} is reached again, and nobody took it over")
            was_unreached = is_unreached

    def check(self) -> None:
        """Raise a ``ShardError`` where this process may not be alone in the folder."""
        doubt = self.doubt()
        if doubt is not None:
            raise doubt

    def doubt(self) -> ShardError | None:
        """Why this process may not be alone in the folder, None if it is.

        After an outage the store is asked once more. The lease of a process that another one has
        followed is gone, or older than the newest one: so that tells.
        """
        if self._seconds_unreached() > LEASE_SECONDS or self._was_unreached:
            self._renew()
        if self._is_taken:
            return ShardError(self._loss())
        if self._seconds_unreached() > LEASE_SECONDS:
            return StoreError(
                f"{self._folder} was not reached for {self._seconds_unreached():.0f} s, so it is "
                "not known whether another process took it over; check the network, and run it "
                "again"
            )
        return None

    def _renew(self) -> None:
        """Rewrite the lease if the newest one is ours; what fails may succeed the next time."""
        now = time.monotonic()
        self._was_unreached |= now - self._renewed > LEASE_SECONDS
        with suppress(ShardError, OSError):
            if self._is_taken or not self._is_ours(self._newest()):
                self._is_taken = True
            else:
                self._put("overwrite")
                self._renewed = now

    def _seconds_unreached(self) -> float:
        """For how long the lease could not be renewed."""
        return time.monotonic() - self._renewed

    def _loss(self) -> str:
        return (
            f"{self._folder} was taken over by another process; let only one write there, and run "
            "it again"
        )

    def remove_older(self) -> None:
        """Remove the leases of the dead."""
        for name in storage.listing(self._prefix):
            if f"{self._prefix}/{name}" < self._url:
                storage.remove(f"{self._prefix}/{name}")

    def release(self) -> None:
        """Remove the lease.

        If that fails, it ends by itself, only later.
        """
        with suppress(ShardError, OSError):
            storage.remove(self._url)

    def _is_ours(self, generation: _Generation) -> bool:
        return generation.content.startswith(self._token)

    def _put(self, mode: str) -> None:
        content = f"{self._token} {time.monotonic()}".encode()
        objects.attempt(
            "write",
            self._url,
            lambda store, name: store.pipe_file(name, content, mode=mode),
        )

    def _newest(self) -> _Generation:
        while names := storage.listing(self._prefix):
            name = max(names)
            with suppress(FileNotFoundError):  # it has ended
                content = storage.read_bytes(f"{self._prefix}/{name}").decode()
                return _Generation(int(name), content)
        return _Generation(0, "")
