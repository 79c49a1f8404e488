"""A lease of a folder in an object store, which has no locks."""

import math
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from shards import objects, storage
from shards.errors import ShardError
from shards.progress import console

LEASE_SECONDS = 20.0  # a holder that could not renew its lease for so long has lost it; it tries four times as often


@contextmanager
def leased(folder: str, busy: ShardError, deadline: float) -> Iterator[None]:
    # Hold the lease of a folder by URL, or raise ``busy``; if it is lost, stderr says so at once, at the end a ``ShardError`` does.
    token, place, own, ended = uuid.uuid4().hex, f"{folder}/.lease", "", threading.Event()
    renewed, since, seen = 0.0, 0.0, (-1, "")
    lost = f"{folder} was taken over by another process, or not reached for {LEASE_SECONDS:g} s; let only one write there, and run it again"

    def put(mode: str) -> None:
        objects.attempt(
            "write",
            own,
            lambda fs, name: fs.pipe_file(name, f"{token} {time.monotonic()}".encode(), mode=mode),
        )

    def renew() -> None:
        nonlocal renewed
        while not ended.wait(LEASE_SECONDS / 4):
            now = time.monotonic()
            with suppress(ShardError, OSError):  # the next time may be better
                if mine := _newest(place)[1].startswith(token):
                    put("overwrite")
                renewed = now if mine and time.monotonic() - renewed <= LEASE_SECONDS else -math.inf
            if time.monotonic() - renewed > LEASE_SECONDS:
                console.print(f"[red]{lost}")
                break

    while not (newest := _newest(place))[1].startswith(token):
        now = time.monotonic()
        if newest != seen:
            if newest[0] and seen[0] >= 0 and now >= deadline:  # it changed: its holder lives
                raise busy
            seen, since = newest, now
        if newest[0] and now - since <= LEASE_SECONDS:
            pause(LEASE_SECONDS / 20, busy)
        else:
            own, renewed = f"{place}/{newest[0] + 1:08}", now
            with suppress(FileExistsError):  # another was faster
                put("create")
    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        for name in storage.listing(place):
            if f"{place}/{name}" < own:  # of the dead
                storage.remove(f"{place}/{name}")
        yield
    finally:
        ended.set()
        thread.join()
        if held := time.monotonic() - renewed <= LEASE_SECONDS:
            with suppress(ShardError, OSError):  # it ends by itself, only later
                storage.remove(own)
    if not held:
        raise ShardError(lost)


def pause(seconds: float, busy: ShardError) -> None:
    time.sleep(seconds)
    if time.monotonic() % 60 < seconds:  # a sign of life
        console.print(f"waiting: {busy}", soft_wrap=True)


def _newest(place: str) -> tuple[int, str]:
    # Generation and content; generation 0 if there is none.
    while names := storage.listing(place):
        with suppress(FileNotFoundError):  # it has ended
            return int(max(names)), storage.read_bytes(f"{place}/{max(names)}").decode()
    return 0, ""
