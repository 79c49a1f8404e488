"""The root of the command line: what `care --help` lists, and how the process ends."""

import io
import signal
import sys
import warnings
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn
import typer
from flows.cli.options import Group, Json, Seed, new_app
from flows.cli.shards import app as shards_app
from flows.cli.tables import print_json, show_ranks, show_results
from flows.evaluations import ABOUT
from flows.exits import exit_on_failure
from shards import sources, storage
from shards.once import listing_once


class _Lazy(NamedTuple):
    """A command, or a group of them, in a module whose import takes seconds."""

    module: str
    about: str


_LAZY = {
    "pretrain": _Lazy(
        "flows.cli.pretrain",
        "Pre-train an encoder by CARE; interrupted, the same command continues from the last"
        " checkpoint.",
    ),
    "evaluate": _Lazy(
        "flows.cli.evaluate",
        ABOUT,
    ),
    "features": _Lazy(
        "flows.cli.features",
        "Features of a set's images, labelled or not, as NumPy, Parquet or safetensors.",
    ),
    "watch": _Lazy(
        "flows.cli.watch",
        "How a training goes: its losses, verdicts, speed and the time that is left.",
    ),
    "maps": _Lazy(
        "flows.cli.maps",
        "Where encoders look at images: Grad-CAM, EigenCAM, the T-stream's attention, as PNG.",
    ),
    "neighbours": _Lazy(
        "flows.cli.neighbours",
        "What is nearest to images in an encoder's features, as a picture.",
    ),
    "export": _Lazy(
        "flows.cli.export",
        "An encoder as torchvision, timm, transformers, detectron2 or ONNX have it, verified.",
    ),
    "pipeline": _Lazy(
        "flows.cli.pipeline",
        "The whole chain as one Prefect flow, here or from deployments; killed, it continues.",
    ),
    "reproduce": _Lazy(
        "flows.cli.reproduce",
        "Does it help? Arms × seeds, judged alike, with error bars; killed, it continues.",
    ),
    "doctor": _Lazy(
        "flows.cli.doctor",
        "What this installation can do on this machine, and what is missing for what.",
    ),
}


class _LazyGroup(Group):
    """Imports a command's module when the command is called or completed, not when it is listed."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name in _LAZY:
            command = typer.main.get_command(import_module(_LAZY[name].module).app)
        return name, command, rest


app = new_app(
    "CARE: self-supervised pre-training of attentive CNNs, from image folders to a report."
    " Start with: care demo",
    cls=_LazyGroup,
    add_completion=True,
    no_args_is_help=True,
)
app.add_typer(shards_app, name="shards")


def _show_version(wanted: bool) -> None:
    """Print which version this is and what it computes with, and end, if that is wanted."""
    if wanted:
        packages = {"care": "care-ssl", "torch": "torch", "torchvision": "torchvision"}
        typer.echo(" · ".join(f"{name} {version(package)}" for name, package in packages.items()))
        raise typer.Exit


@app.callback()
def _options_of_all(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the versions of care and torch, and end.",
            callback=_show_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """What is asked before any command."""


def main() -> NoReturn:
    """Entry point; exit codes: 0 done, 1 failed, 2 usage, 3 stopped on request and saved."""
    # about odd files, which a build rejects by name or decodes
    warnings.filterwarnings("ignore", module="PIL")
    # what a terminal cannot write is escaped: no name of a file ends a command
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # SIGTERM stops and saves as a Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with exit_on_failure():
        app()
    sys.exit(0)


@app.command()
@listing_once()
def demo(
    images: Annotated[
        str | None, typer.Option(help="Your own image folder instead of procedural scenes.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Run directory; by default demo, or demo-NAME with --images.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Pre-training steps; default: 250, with --images 2000."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """The whole chain in minutes on a CPU: images, shards, pre-training, evaluation, report.

    Run again, it goes on.

    Example: care demo --images photos
    """
    folder = out or "demo"
    if images:
        # a wrong path is told now, not after the engine's start
        sources.find(images)
        folder = out or f"demo-{Path(images).resolve().name}"
    from flows.cli.pipeline import run_and_show

    run_and_show(as_json=as_json, out=folder, images=images, seed=seed, steps=steps)


def _list_lazily(name: str, about: str) -> None:
    """List a command by its name and help; ``_LazyGroup`` finds what it does."""

    @app.command(name, help=about)
    def _() -> None: ...


for _name, _lazy in _LAZY.items():
    _list_lazily(_name, _lazy.about)


@app.command()
def report(
    context: typer.Context,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="Directory of `care demo` or `care pretrain`, path or URL."
        ),
    ],
    evaluations: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Folder of `care evaluate`, whose results of the run's encoder are shown.",
        ),
    ] = "evaluations",
    as_json: Json = False,
) -> None:
    """Write the HTML page about a run: its results, its losses, its settings.

    Example: care report runs/r50
    """
    from care.show import report as write_page

    source = context.get_parameter_source("evaluations")
    is_named = source is not None and source.name != "DEFAULT"
    page = str(write_page(run, judged=evaluations, optional=not is_named))
    if as_json:
        print_json({"report": page})
    else:
        typer.echo(page)


@app.command()
def results(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="Folder with runs and evaluations, path or URL.")
    ],
    csv: Annotated[
        str | None, typer.Option(help="Also write every figure, unrounded, to this file.")
    ] = None,
    markdown: Annotated[
        str | None, typer.Option(help="Also write the tables to this file.")
    ] = None,
    ranks: Annotated[
        bool,
        typer.Option(
            "--ranks",
            help="Show instead whether label-free measures rank the encoders as the scores do.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """All results below a folder, beside what the paper reports for the same tasks.

    Example: care results evaluations --csv results.csv
    """
    from care.show import as_csv, as_markdown, compared, gather

    rows = compared(gather(folder))
    if ranks:
        show_ranks(rows, as_json)
        return
    if csv:
        storage.write_bytes(csv, as_csv(rows).encode())
    if markdown:
        storage.write_bytes(markdown, as_markdown(rows).encode())
    show_results(rows, as_json)
