"""One process at a time in a folder: a lock of the kernel's in a local one, a lease in one of an object store, which has no locks.

Whoever has written the highest object ``.lease/GENERATION`` owns the folder, and rewrites it all the time. Who has seen it unchanged for
``LEASE_SECONDS`` takes its writer for dead and creates the next generation, which a store lets only one do. Clocks are not compared.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shards import storage
from shards.errors import ShardError
from shards.leases import leased, pause


@contextmanager
def exclusive(folder: str | Path, doing: str, *, patience: float = 0) -> Iterator[None]:
    """No other process in this block with ``folder``, which is made; a ``ShardError`` if one is after ``patience`` seconds."""
    deadline, busy = (
        time.monotonic() + patience,
        ShardError(f"another process is {doing} {folder}; wait until it ends, or stop it"),
    )
    if storage.is_remote(folder):
        with leased(str(folder).rstrip("/"), busy, deadline):
            yield
        return
    with storage.readable_errors(local := Path(folder)):
        local.mkdir(parents=True, exist_ok=True)
        fd = os.open(local, os.O_RDONLY)
    try:
        while True:
            try:
                fcntl.flock(
                    fd, fcntl.LOCK_EX | fcntl.LOCK_NB
                )  # the kernel ends it with the process
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise busy from None
            pause(0.1, busy)
        yield
    finally:
        os.close(fd)
