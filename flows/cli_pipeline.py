"""`care pipeline`: the whole chain with a Prefect server of its own, or from deployments of another, and how far it is."""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.request import urlopen
import prefect
import typer
from httpx import HTTPError
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import EntrypointType  # type: ignore[attr-defined]
from prefect.exceptions import ObjectAlreadyExists, TerminationSignal
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)
from rich.console import Console
from rich.markdown import Markdown
from flows import records
from flows.chain import REDONE
from flows.pipeline import care_pipeline
from flows.tables import Json, Result, print_json, table
from shards import storage
from shards.errors import ShardError
from shards.terminal import caused, command, console

# Prefect's own ephemeral server outlives a SIGKILL of its parent, and dies of its Ctrl-C before we could save: PR_SET_PDEATHSIG, SIGKILL
_SERVE = "import ctypes, sys; ctypes.CDLL(None).prctl(1, 9); from uvicorn.main import main; main(sys.argv[1:])"
app = typer.Typer(
    help="The whole chain as one Prefect flow: here, or from deployments that a Prefect server starts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def chain(*, plain: bool = False, **settings: Any) -> Result:
    """The results of `care-pipeline`, as ``run_flow`` has them."""
    return run_flow(care_pipeline, plain=plain, **settings)


def run_flow(of_care: Flow[..., Result], *, plain: bool = False, **settings: Any) -> Result:
    """The results of a flow with a Prefect server, the configured one, or one of our own.

    Args:
        of_care: the flow.
        plain: without Prefect, as it also is if no server answers.
        **settings: parameters of the flow.
    """
    storage.is_remote(
        str(settings)
    )  # Prefect stores them before the flow could refuse one with a secret
    if plain or "CARE_PLAIN" in os.environ:
        return dict(of_care.fn(**settings))
    if not PREFECT_API_URL.value():  # nobody could look at logs there; all is told here
        logging.disable(logging.ERROR)
    console.print("starting the workflow engine")
    with server() as address:
        try:
            if address:
                return dict(of_care(**settings))
        except (HTTPError, RuntimeError) as error:
            if caused(error, KeyboardInterrupt, TerminationSignal):
                raise KeyboardInterrupt from None
            if not caused(error, HTTPError):
                raise
    console.print("[yellow]Prefect's server does not answer; going on without it")
    os.environ["CARE_PLAIN"] = " ".join(("1", *REDONE))
    # anew, for our end would wait minutes for all that Prefect has yet to tell that server
    return os.execv(sys.executable, sys.orig_argv)


def show(out: str, results: Result, as_json: bool) -> None:
    """Print what came out."""
    for line in results["skipped"]:
        console.print(f"[yellow]skipped: {line}", soft_wrap=True)
    if as_json:
        print_json(results)
    else:  # of a file: making it imports torch
        Console().print(Markdown(storage.read_bytes(f"{out}/results.md").decode()))
    console.print(f"report: {storage.locate(out) / 'report.html'}", soft_wrap=True)


def _run(
    plain: Annotated[bool, typer.Option("--plain", help="Without Prefect.")] = False,
    as_json: Json = False,
    **settings: Any,
) -> None:
    show(settings["out"], chain(plain=plain, **settings), as_json)


command(
    app,
    care_pipeline.fn,
    _run,
    "care pipeline run --images s3://bucket/photos --out s3://bucket/lab",
    name="run",
)


@app.command()
def status(
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="Folder of a pipeline, path or URL.")
    ] = "demo",
    as_json: Json = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Those of earlier settings, too.")
    ] = False,
) -> None:
    """Which stages below a folder are finished, and how far the others are; asks the files, not a server.

    Example: care pipeline status demo
    """
    if not (rows := records.status(out)):
        raise ShardError(
            f"wanted the folder of a pipeline, got {out} without stages; start one with: care pipeline run --out {out}"
        )
    rows = (
        rows if everything else [*{row["stage"].rpartition("-")[0]: row for row in rows}.values()]
    )
    if as_json:
        print_json(rows)
    else:
        table(
            f"stages of {out}",
            ("stage", "state", "finished or saved", "what"),
            [tuple(row.values()) for row in rows],
        )


@app.command()
def serve() -> None:
    """Let a Prefect server start the pipeline and its stages in this folder, until Ctrl-C.

    Example: care pipeline serve, and in another terminal: prefect deployment run care-pipeline/care-pipeline
    """
    with _configured():
        prefect.serve(*_deployments())


@app.command()
def deploy(
    pool: Annotated[
        str, typer.Option(help="Process work pool, made where there is none.")
    ] = "care",
) -> None:
    """Deploy the pipeline and its stages to a work pool, whose workers run them in this folder.

    Example: care pipeline deploy, then: prefect worker start --pool care
    """
    with _configured() as address:
        with suppress(ObjectAlreadyExists), get_client(sync_client=True) as client:
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        for one in _deployments(
            work_pool_name=pool, job_variables={"working_dir": str(Path.cwd())}
        ):
            one.apply()
            typer.echo(f"deployed {one.flow_name}/{one.name}")
        console.print(
            f"at {address}; start a worker: prefect worker start --pool {pool}", soft_wrap=True
        )


def _deployments(**settings: Any) -> list[Any]:
    from flows.single import STAGES  # imports torch

    return [
        one.to_deployment(one.name, entrypoint_type=EntrypointType.MODULE_PATH, **settings)
        for one in (care_pipeline, *STAGES)
    ]


@contextmanager
def _configured() -> Iterator[str]:
    if not answers(
        address := PREFECT_API_URL.value() or "http://127.0.0.1:4200/api"
    ):  # where `prefect server start` listens
        raise ShardError(
            f"no Prefect server answers at {address}; start one with: prefect server start, or set PREFECT_API_URL"
        )
    with temporary_settings({PREFECT_API_URL: address}):
        yield address


def answers(address: str) -> bool:
    """Whether a Prefect server does at an API's address."""
    with suppress(OSError), urlopen(f"{address}/health", timeout=5):
        return True
    return False


@contextmanager
def server() -> Iterator[str]:
    """The address of the configured Prefect server, or of one here for the block; "" if none answers."""
    if address := PREFECT_API_URL.value():
        yield address if answers(address) else ""
        return
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address, null = f"http://127.0.0.1:{port}/api", subprocess.DEVNULL
    served = [
        "--app-dir",
        str(prefect.__module_path__.parent),
        "--factory",
        "prefect.server.api.server:create_app",
    ]
    command = [
        sys.executable,
        "-c",
        _SERVE,
        *served,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--log-level",
        "critical",
    ]
    environment = os.environ | {
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
    }
    process = subprocess.Popen(
        command, env=environment, start_new_session=True, stdin=null, stdout=null, stderr=null
    )
    try:
        deadline = time.monotonic() + 120
        while (
            not (up := answers(address)) and process.poll() is None and time.monotonic() < deadline
        ):
            time.sleep(0.1)
        # logs would go to a server that is gone before the last of them; one of our own that does not answer is dead
        with temporary_settings(
            {
                PREFECT_API_URL: address,
                PREFECT_LOGGING_TO_API_ENABLED: False,
                PREFECT_CLIENT_MAX_RETRIES: 2,
            }
        ):
            yield address if up else ""
    finally:
        process.kill()
