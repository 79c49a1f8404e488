"""A Prefect server for a flow that runs here: the one that is configured, or one of our own.

A flow needs a server, and its results do not: they are in files, the same to the byte without one.
So where none answers, the flow goes on without. Tests: ``tests/flows/test_pipeline.py``.
"""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.request import urlopen
import prefect
from httpx import HTTPError
from prefect import Flow
from prefect.exceptions import TerminationSignal
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)
from flows import environment
from flows.exits import caused
from flows.heartbeats import miss_heartbeats
from flows.result import Result
from flows.schedule import REDONE
from shards import storage
from shards.progress import console

START_SECONDS = 120.0  # that a server of our own may take until it answers
# Prefect's own ephemeral server outlives a SIGKILL of its parent, and dies of its Ctrl-C before we
# could save. Ours is killed with us.
_SERVE = (
    "import signal, sys; from shards.orphans import end_with_parent;"
    " end_with_parent(signal.SIGKILL); from uvicorn.main import main; main(sys.argv[1:])"
)


def run_flow(care_flow: Flow[..., Result], *, plain: bool = False, **settings: Any) -> Result:
    """Run a flow in this process.

    Args:
        care_flow: one of this package's.
        plain: without Prefect, as it also is if no server answers.
        **settings: parameters of the flow.

    Returns:
        What the flow returns.

    Raises:
        KeyboardInterrupt: The run was stopped; what is finished is kept.
    """
    # Prefect stores the settings before the flow could refuse one with a secret
    storage.is_remote(str(settings))
    if plain or environment.is_plain():
        return dict(care_flow.fn(**settings))
    if not PREFECT_API_URL.value():
        # nobody could look at logs there; all is told here
        logging.disable(logging.ERROR)
    console.print("starting the workflow engine")
    with server() as address:
        try:
            if address:
                return dict(care_flow(**settings))
        except (HTTPError, RuntimeError) as error:
            if caused(error, KeyboardInterrupt, TerminationSignal):
                raise KeyboardInterrupt from None
            if not caused(error, HTTPError):
                raise
    console.print("[yellow]Prefect's server does not answer; going on without it")
    environment.go_plain(REDONE)
    # anew, for our end would wait minutes for all that Prefect has yet to tell that server
    return os.execv(sys.executable, sys.orig_argv)


@contextmanager
def server() -> Iterator[str]:
    """The address of the configured Prefect server, or of one of our own that ends with the block.

    Yields:
        Where its API is; "" if it does not answer.
    """
    configured = PREFECT_API_URL.value()
    if configured:
        if not answers(configured):
            yield ""
            return
        miss_heartbeats()
        yield configured
        return
    port = _free_port()
    address = f"http://127.0.0.1:{port}/api"
    process = _start(port)
    settings = {
        PREFECT_API_URL: address,
        # they would go to a server that is gone before the last of them
        PREFECT_LOGGING_TO_API_ENABLED: False,
        # one of our own that does not answer is dead
        PREFECT_CLIENT_MAX_RETRIES: 2,
    }
    try:
        deadline = time.monotonic() + START_SECONDS
        while not (ready := answers(address)):
            if process.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        with temporary_settings(settings):
            yield address if ready else ""
    finally:
        process.kill()


def answers(address: str) -> bool:
    """Whether a Prefect server answers at the address of its API."""
    with suppress(OSError), urlopen(f"{address}/health", timeout=5):
        return True
    return False


def _free_port() -> int:
    """A port of the loopback that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _start(port: int) -> subprocess.Popen[bytes]:
    """A Prefect server on the loopback, in a session of its own, that ends when we do."""
    command = [sys.executable, "-c", _SERVE]
    command += ["--app-dir", str(prefect.__module_path__.parent)]
    command += ["--factory", "prefect.server.api.server:create_app"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "critical"]
    variables = {
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
    }
    return subprocess.Popen(
        command,
        env=os.environ | variables,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
