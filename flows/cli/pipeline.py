"""`care pipeline`: the whole chain as one Prefect flow, run here or from deployments."""

import textwrap
from collections import Counter
from typing import Annotated, Any
import typer
from rich.console import Console
from rich.markdown import Markdown
from flows import deployments
from flows.cli.options import Json, Plain, add_command, new_app
from flows.cli.tables import print_json, table
from flows.command import FLAGS
from flows.pipeline import care_pipeline
from flows.plan import experiment_of_options, plan_of_options
from flows.server import run_flow
from flows.status import stage_states
from shards import storage
from shards.errors import ShardError
from shards.once import listing_once
from shards.progress import console, warn

_MINUTES = len("2026-11-30 21:24")  # of a time in a table
_WIDE = 120  # columns of a terminal in which the name of any stage stands on one line

app = new_app(
    "The whole chain as one Prefect flow: here, or from deployments that a Prefect server starts.",
    no_args_is_help=True,
)


@listing_once()
def run_and_show(plain: Plain = False, as_json: Json = False, **settings: Any) -> None:
    """Run the pipeline and print what came out.

    Args:
        plain: without Prefect.
        as_json: the results, instead of their tables.
        **settings: parameters of ``care_pipeline``, ``out`` among them.
    """
    # what is wrong is told now, not after the engine's start
    experiment_of_options(settings)
    results = run_flow(care_pipeline, plain=plain, **settings)
    out = settings["out"]
    for line in results["skipped"]:
        warn(f"skipped: {line}")
    if as_json:
        print_json(results)
    else:
        # as it was written: making the tables here would import torch
        Console().print(Markdown(storage.read_bytes(f"{out}/results.md").decode()))
    console.print(f"report: {storage.locate(out) / 'report.html'}", soft_wrap=True)


add_command(
    app,
    care_pipeline.fn,
    run_and_show,
    "care pipeline run --images s3://bucket/photos --out s3://bucket/lab",
    name="run",
    names=FLAGS,
)


def show_plan(as_json: Json = False, **settings: Any) -> None:
    """Print what the pipeline would do.

    Args:
        as_json: a JSON value, instead of a table.
        **settings: parameters of ``care_pipeline``.
    """
    stages = plan_of_options(settings)
    if as_json:
        print_json([stage._asdict() for stage in stages])
        return
    lines = [(_broken(stage.stage), *stage[1:]) for stage in stages]
    table(f"plan of {settings['out']}", ("stage", "--refresh", "state", "why"), lines)
    counts = Counter(stage.state for stage in stages)
    summary = ", ".join(f"{count} {state}" for state, count in counts.items())
    console.print(f"{summary}; do it with care pipeline run and the same options", soft_wrap=True)


add_command(
    app,
    care_pipeline.fn,
    show_plan,
    "care pipeline plan --images photos --out lab --refresh knn",
    name="plan",
    names=FLAGS,
    about="What run would do with the same options: what is cached, what would run, and what is"
    " left out and why. Nothing is done, and no server is asked.",
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
    """Which stages below a folder are finished, how far the others are, and what is to come.

    It asks the files, not a server.

    Example: care pipeline status demo
    """
    rows = stage_states(out, everything=everything)
    if not rows:
        raise ShardError(
            f"wanted the folder of a pipeline, got {out} without stages; start one with:"
            f" care pipeline run --out {out}"
        )
    if as_json:
        print_json([row._asdict() for row in rows])
        return
    lines = [(_broken(row.stage), row.state, row.at[:_MINUTES], row.text) for row in rows]
    table(f"stages of {out}", ("stage", "state", "finished, saved", "what"), lines)


def _broken(stage: str) -> str:
    """The name of a stage, broken at hyphens where the terminal is narrow, not within a word."""
    width = Console().width
    if width >= _WIDE:
        return stage
    return "\n".join(textwrap.wrap(stage, 3 * width // 10))


CronText = Annotated[
    str | None,
    typer.Option(
        help="When the pipeline is run with these options without being asked: '0 3 * * *' is three"
        " o'clock every night."
    ),
]
Timezone = Annotated[str, typer.Option(help="That of --cron, such as Europe/Berlin.")]


def serve(cron: CronText = None, timezone: Timezone = "UTC", **options: Any) -> None:
    """Serve the flows until Ctrl-C; the options are the pipeline's."""
    pipeline = deployments.scheduled_pipeline(options, cron, timezone)
    with deployments.configured_server():
        deployments.serve(pipeline)


add_command(
    app,
    care_pipeline.fn,
    serve,
    "care pipeline serve --images photos --out lab --cron '0 3 * * *', or without any option, and"
    " in another terminal: prefect deployment run care-pipeline/care-pipeline",
    name="serve",
    names=FLAGS,
    about="Let a Prefect server start pipeline, grid and stages in this folder, until Ctrl-C. The"
    " grid is that of care reproduce; the options are what the pipeline runs with, unless a run is"
    " given others.",
)


def deploy(
    pool: Annotated[
        str, typer.Option(help="Process work pool, made where there is none.")
    ] = "care",
    cron: CronText = None,
    timezone: Timezone = "UTC",
    **options: Any,
) -> None:
    """Deploy the flows; the options are the pipeline's."""
    pipeline = deployments.scheduled_pipeline(options, cron, timezone)
    with deployments.configured_server() as address:
        for name in deployments.deploy(pool, pipeline):
            typer.echo(f"deployed {name}")
        console.print(
            f"at {address}; start a worker: prefect worker start --pool {pool}", soft_wrap=True
        )


add_command(
    app,
    care_pipeline.fn,
    deploy,
    "care pipeline deploy --images photos --out lab --cron '0 3 * * *', then:"
    " prefect worker start --pool care",
    name="deploy",
    names=FLAGS,
    about="Deploy pipeline, grid and stages to a work pool, whose workers run them in this folder."
    " The grid is that of care reproduce; the options are what the pipeline runs with, unless a"
    " run is given others.",
)
