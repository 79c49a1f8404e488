"""One process at a time in a folder.

In a local folder a lock of the kernel's sees to it, which ends with the process that has it. Object
stores have no locks; there a lease does (``leases``).
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shards import storage
from shards.errors import ShardError
from shards.leases import leased, wait_for_holder

SECONDS_BETWEEN_TRIES = 0.1


@contextmanager
def exclusive(
    folder: str | Path, doing: str, *, patience: float = 0
) -> Iterator[Callable[[], None]]:
    """Keep all other processes out of this block with the same folder.

    Args:
        folder: a path or a URL; it is made.
        doing: what is done in the block, for the message: "another process is ``doing`` FOLDER".
        patience: seconds to wait for another process.

    Yields:
        What raises a ``ShardError`` if another process has taken the folder over all the same,
        which in an object store it does where this one was not heard of for long.

    Raises:
        ShardError: Another process is still in such a block, or the folder cannot be made.
    """
    deadline = time.monotonic() + patience
    busy = ShardError(f"another process is {doing} {folder}; wait until it ends, or stop it")
    if storage.is_remote(folder):
        with leased(str(folder).rstrip("/"), busy, deadline) as check:
            yield check
        return
    path = Path(folder)
    with storage.readable_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY)
    try:
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                raise busy
            wait_for_holder(SECONDS_BETWEEN_TRIES, busy)
        yield _check_nothing
    finally:
        os.close(descriptor)


def is_held(folder: str | Path) -> bool:
    """Whether a process is in an ``exclusive`` block with a local folder now.

    Args:
        folder: a path; nobody is at one that is not there.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # a shared lock: two who look do not take each other for a holder
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _check_nothing() -> None:
    """A kernel's lock is not lost while its process lives."""


def _try_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock an open folder unless another process has.

    Args:
        descriptor: of the folder.
        kind: of the lock.

    Returns:
        Whether it is locked now.
    """
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
