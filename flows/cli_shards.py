"""`care shards`: build, info, verify."""

from typing import Annotated, Any

import typer

import shards
from flows.tables import Json, Set, print_json, table
from shards.options import command

app = typer.Typer(help="Image folders into WebDataset shards with an index.", no_args_is_help=True)


def _build(
    src: Annotated[str, typer.Argument(metavar="SRC", help="Image folder, CSV, COCO JSON, VOC list, tars; path or URL.")],
    dest: Annotated[str, typer.Argument(metavar="DEST", help="New or empty folder for the set; path or URL.")],
    as_json: Json = False, **settings: Any,
) -> None:  # fmt: skip
    shards.build(src, dest, **settings)
    info(dest, as_json)


command(app, shards.build, _build, "care shards build photos/train sets/train", skip=("share",))


@app.command()
def info(path: Set, as_json: Json = False) -> None:
    """What is in a set: counts, classes, and every rejected file with its reason.

    Example: care shards info sets/train
    """
    index = shards.open(path).index
    per_class = {name: int((index.samples["label"] == label).sum()) for label, name in enumerate(index.classes)}
    facts = {
        "kept": len(index.samples), "seen": index.seen, "rejected": {reason: len(names) for reason, names in index.rejects.items()},
        "shards": len(index.shards), "bytes": sum(shard.filesize for shard in index.shards), "classes": per_class,
        "digest": index.digest, "seed": index.seed,
    }  # fmt: skip
    if as_json:
        print_json(facts | {"rejects": dict(index.rejects)})
        return
    table(f"shard set {path}", ("", ""), [(name, _text(value)) for name, value in facts.items()])
    if index.rejects:
        table("rejected", ("reason", "file"), [(reason, name) for reason, names in index.rejects.items() for name in names])


@app.command()
def verify(path: Set) -> None:
    """Read all of a set and check every byte against its index; exit code 1 when anything is wrong.

    Example: care shards verify sets/train
    """
    problems = shards.verify(path)
    if problems:
        typer.echo("\n".join(problems))
        raise shards.ShardError(f"{path}: {len(problems)} problems; copy the set again, or remove it and build it again")
    typer.echo(f"{path} is intact")


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_text(part)}" for name, part in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
