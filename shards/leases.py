"""Leases of folders in object stores, which have no locks.

Whoever has written the highest object ``.lease/GENERATION`` owns the folder, and rewrites it all
the time. Who has seen it unchanged for ``LEASE_SECONDS`` takes its writer for dead and creates the
next generation, which a store lets only one do. Clocks are not compared.
"""

import math
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple
from shards import objects, storage
from shards.errors import ShardError
from shards.progress import say

# a holder that could not renew its lease for so long has lost it; it tries four times as often
LEASE_SECONDS = 20.0


@contextmanager
def leased(folder: str, busy: ShardError, deadline: float) -> Iterator[None]:
    """Hold the lease of a folder for the length of the block.

    If it is lost meanwhile, stderr says so at once, and an error at the end of the block.

    Args:
        folder: its URL, without a slash at the end.
        busy: what to raise if another process holds it.
        deadline: until when to wait for that, by ``time.monotonic()``.

    Raises:
        ShardError: ``busy``, or the lease was lost.
    """
    lease = _Lease(folder)
    lease.acquire(busy, deadline)
    thread = threading.Thread(target=lease.renew_until_ended, daemon=True)
    thread.start()
    try:
        lease.remove_older()
        yield
    finally:
        lease.ended.set()
        thread.join()
        lost = lease.is_lost()
        if not lost:
            lease.release()
    if lost:
        raise ShardError(lease.loss)


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
        loss: what to say if it is lost.
    """

    def __init__(self, folder: str) -> None:
        self.ended = threading.Event()
        self.loss = (
            f"{folder} was taken over by another process, or not reached for "
            f"{LEASE_SECONDS:g} s; let only one write there, and run it again"
        )
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
        """Rewrite the lease until it is lost or ``ended`` is set, in a thread."""
        while not self.ended.wait(LEASE_SECONDS / 4):
            now = time.monotonic()
            with suppress(ShardError, OSError):  # the next time may be better
                ours = self._is_ours(self._newest())
                if ours:
                    self._put("overwrite")
                self._renewed = now if ours and not self.is_lost() else -math.inf
            if self.is_lost():
                say(self.loss, "red")
                break

    def is_lost(self) -> bool:
        """Whether it was not renewed for so long that another process may have taken it."""
        return time.monotonic() - self._renewed > LEASE_SECONDS

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
