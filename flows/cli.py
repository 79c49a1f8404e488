"""The command line `care`. Every command is a few lines around one public function; heavy imports wait until a command runs."""

import signal
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn
import typer
from typer.core import TyperGroup
import shards
from flows.tables import Json, Seed, Set, print_json, show_results, table
from shards import sources, storage
from shards.terminal import command, told

_APPS = {  # commands that are apps of their own, of modules whose import takes seconds
    "pretrain": (
        "care.train.__main__",
        "Pre-train an encoder by CARE; interrupted, the same command continues from the last checkpoint.",
    ),
    "evaluate": (
        "flows.cli_evaluate",
        "Judge encoders: kNN, linear, few labels, detection; interrupted, the same command continues.",
    ),
    "pipeline": (
        "flows.cli_pipeline",
        "The whole chain as one Prefect flow, here or from deployments; killed, it continues.",
    ),
    "reproduce": (
        "flows.cli_reproduce",
        "Does it help? Arms × seeds, judged alike, with error bars; killed, it continues.",
    ),
}


class _Group(TyperGroup):
    """Imports an app when it is called, or completed, not when it is listed."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, found, rest = super().resolve_command(ctx, args)
        return (
            name,
            typer.main.get_command(import_module(_APPS[name][0]).app) if name in _APPS else found,
            rest,
        )


app = typer.Typer(
    cls=_Group,
    help="CARE: self-supervised pre-training of attentive CNNs, from image folders to a report. Start with: care demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_shards = typer.Typer(
    help="Image folders into WebDataset shards with an index.", no_args_is_help=True
)
app.add_typer(_shards, name="shards")


def main() -> NoReturn:
    """Entry point; exit codes: 0 done, 1 failed, 2 usage, 3 stopped on request and saved."""
    warnings.filterwarnings(
        "ignore", module="PIL"
    )  # about odd files, which the build rejects by name or decodes
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a Ctrl-C, too
    with told():
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
    """The whole chain in minutes on a CPU: images, shards, pre-training, evaluation, report. Run again, it goes on.

    Example: care demo --images photos
    """
    folder = out or (f"demo-{Path(images).resolve().name}" if images else "demo")
    if images:
        sources.find(images)  # a wrong path is told now, not after the engine's start
    from flows.cli_pipeline import chain, show

    show(folder, chain(out=folder, images=images, seed=seed, steps=steps), as_json)


for _name, (_, _about) in _APPS.items():
    app.command(_name, help=_about)(lambda: None)


@app.command()
def report(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Directory of `care demo` or `care pretrain`.")
    ],
) -> None:
    """Write the HTML page about a run from the files in its directory.

    Example: care report demo
    """
    from care.show import report as write

    typer.echo(str(write(run)))


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

    rows, texts = compared(gather(folder)), ((csv, as_csv), (markdown, as_markdown))
    for path, text in ((path, text) for path, text in texts if path):
        storage.write_bytes(path, text(rows).encode())
    show_results(rows, rows if as_json else None)


def _build(
    src: Annotated[
        str,
        typer.Argument(
            metavar="SRC", help="Image folder, CSV, COCO JSON, VOC list, tars; path or URL."
        ),
    ],
    dest: Annotated[
        str, typer.Argument(metavar="DEST", help="New or empty folder for the set; path or URL.")
    ],
    as_json: Json = False,
    **settings: Any,
) -> None:
    shards.build(src, dest, **settings)
    info(dest, as_json)


command(_shards, shards.build, _build, "care shards build photos/train sets/train", skip=("share",))


@_shards.command()
def info(path: Set, as_json: Json = False) -> None:
    """What is in a set: counts, classes, and every rejected file with its reason.

    Example: care shards info sets/train
    """
    index = shards.open(path).index
    per_class = {
        name: int((index.samples["label"] == label).sum())
        for label, name in enumerate(index.classes)
    }
    facts = {
        "kept": len(index.samples),
        "seen": index.seen,
        "rejected": {reason: len(names) for reason, names in index.rejects.items()},
        "shards": len(index.shards),
        "bytes": sum(shard.filesize for shard in index.shards),
        "classes": per_class,
        "digest": index.digest,
        "seed": index.seed,
    }
    if as_json:
        print_json(facts | {"rejects": dict(index.rejects)})
        return
    table(f"shard set {path}", ("", ""), [(name, _text(value)) for name, value in facts.items()])
    if index.rejects:
        table(
            "rejected",
            ("reason", "file"),
            [(reason, name) for reason, names in index.rejects.items() for name in names],
        )


@_shards.command()
def verify(path: Set) -> None:
    """Read all of a set and check every byte against its index; exit code 1 when anything is wrong.

    Example: care shards verify sets/train
    """
    problems = shards.verify(path)
    if problems:
        typer.echo("\n".join(problems))
        raise shards.ShardError(
            f"{path}: {len(problems)} problems; copy the set again, or remove it and build it again"
        )
    typer.echo(f"{path} is intact")


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_text(part)}" for name, part in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
