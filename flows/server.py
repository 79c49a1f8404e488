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

import prefect
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

STARTUP_SECONDS = 120
# Prefect's own ephemeral server outlives a SIGKILL of its parent, and dies of its Ctrl-C before we could save: PR_SET_PDEATHSIG, SIGKILL
_SERVE = "import ctypes, sys; ctypes.CDLL(None).prctl(1, 9); from uvicorn.main import main; main(sys.argv[1:])"


def answers(address: str) -> bool:
    """Whether a Prefect server does at an API's address."""
    with suppress(OSError), urlopen(f"{address}/health", timeout=5):
        return True
    return False


@contextmanager
def server() -> Iterator[str]:
    """The address of the configured Prefect server, or of one here for the block, started again if it dies; "" if none answers."""
    if address := PREFECT_API_URL.value():
        yield address if answers(address) else ""
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    null = subprocess.DEVNULL
    address, ended, process = f"http://127.0.0.1:{port}/api", threading.Event(), list[subprocess.Popen[bytes]]()
    options = ("--host", "127.0.0.1", "--port", str(port), "--log-level", "critical", "--lifespan", "on")
    command = [sys.executable, "-c", _SERVE, "--app-dir", str(prefect.__module_path__.parent), "--factory"]
    command += [*options, "prefect.server.api.server:create_app"]
    environment = os.environ | {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}

    def keep() -> None:
        while not ended.is_set():
            process[:] = [subprocess.Popen(command, env=environment, start_new_session=True, stdin=null, stdout=null, stderr=null)]
            process[0].wait()
            ended.wait(1)

    threading.Thread(target=keep, daemon=True).start()  # whose end is that of the process: it is the parent that the kernel looks at
    try:
        deadline = time.monotonic() + STARTUP_SECONDS
        while not (up := answers(address)) and time.monotonic() < deadline:
            time.sleep(0.1)
        # logs would go to a server that is gone before the last of them
        with temporary_settings({PREFECT_API_URL: address, PREFECT_LOGGING_TO_API_ENABLED: False}):
            yield address if up else ""
    finally:
        ended.set()
        process[0].kill()
