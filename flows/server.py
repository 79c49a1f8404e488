"""A Prefect server of our own for one command, where none is configured; it ends with this process, however that ends."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.request import urlopen

from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

STARTUP_SECONDS = 120


def _forget_exit_hooks() -> None:
    # In a forked child (a loader's worker) Prefect's exit hooks wait for threads that are not there, and end it with exit code 1.
    hooks = getattr(threading, "_threading_atexits", [])
    hooks[:] = [hook for hook in hooks if not hook.func.__module__.startswith("prefect.")]


os.register_at_fork(after_in_child=_forget_exit_hooks)


@contextmanager
def server() -> Iterator[str]:
    """The address of the configured Prefect server, or of one on this machine for the block; a ``TimeoutError`` if it does not start."""
    if PREFECT_API_URL.value():
        yield PREFECT_API_URL.value()
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Prefect's own ephemeral server outlives a SIGKILL of its parent and dies of its Ctrl-C before we could save. This one has
    # its own session, and the shell ends it when the pipe from us closes.
    command = '"$0" -m prefect server start --host 127.0.0.1 --port "$1" --no-ui --log-level CRITICAL & cat; kill $!; wait'
    process = subprocess.Popen(
        ["sh", "-c", command, sys.executable, str(port)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    try:
        address, deadline = f"http://127.0.0.1:{port}/api", time.monotonic() + STARTUP_SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError), urlopen(f"{address}/health", timeout=5):
                break
            time.sleep(0.1)
        else:
            raise TimeoutError(
                f"Prefect's server did not start within {STARTUP_SECONDS} s; try `prefect server start` and set PREFECT_API_URL"
            )
        # logs would go to a server that is gone before the last of them
        with temporary_settings({PREFECT_API_URL: address, PREFECT_LOGGING_TO_API_ENABLED: False}):
            yield address
    finally:
        process.stdin.close()
        process.wait()
