"""The root of the command line: what `care --help` lists, and how the process ends."""

import signal
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn
import typer
from typer.core import TyperGroup
from flows.cli.options import Json, Seed, new_app
from flows.cli.shards import app as shards_app
from flows.cli.tables import show_results
from flows.exits import exit_on_failure
from shards import sources, storage


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
        "Judge encoders: kNN, linear, few labels, detection; interrupted, the same command"
        " continues.",
    ),
    "pipeline": _Lazy(
        "flows.cli.pipeline",
        "The whole chain as one Prefect flow, here or from deployments; killed, it continues.",
    ),
    "reproduce": _Lazy(
        "flows.cli.reproduce",
        "Does it help? Arms × seeds, judged alike, with error bars; killed, it continues.",
    ),
}


class _LazyGroup(TyperGroup):
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
    no_args_is_help=True,
)
app.add_typer(shards_app, name="shards")


def main() -> NoReturn:
    """Entry point; exit codes: 0 done, 1 failed, 2 usage, 3 stopped on request and saved."""
    # about odd files, which a build rejects by name or decodes
    warnings.filterwarnings("ignore", module="PIL")
    # SIGTERM stops and saves as a Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with exit_on_failure():
        app()
    sys.exit(0)


@app.command()
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
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Directory of `care demo` or `care pretrain`.")
    ],
) -> None:
    """Write the HTML page about a run from the files in its directory.

    Example: care report demo
    """
    from care.show import report as write_page

    typer.echo(str(write_page(run)))


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
    as_json: Json = False,
) -> None:
    """All results below a folder, beside what the paper reports for the same tasks.

    Example: care results evaluations --csv results.csv
    """
    from care.show import as_csv, as_markdown, compared, gather

    rows = compared(gather(folder))
    if csv:
        storage.write_bytes(csv, as_csv(rows).encode())
    if markdown:
        storage.write_bytes(markdown, as_markdown(rows).encode())
    show_results(rows, as_json)
