"""`care shards`: build, info, verify."""

from typing import Annotated, Literal

import typer

from flows.tables import Json, Seed, Set, print_json, table

app = typer.Typer(help="Image folders into WebDataset shards with an index.", no_args_is_help=True)


@app.command()
def build(
    src: Annotated[str, typer.Argument(metavar="SRC", help="Image folder, CSV, COCO JSON, VOC list, tars; path or URL.")],
    dest: Annotated[str, typer.Argument(metavar="DEST", help="New or empty folder for the set; path or URL.")],
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; by default one a core.")] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Images in a shard.")] = 1000,
    seed: Seed = 0,
    max_rejects: Annotated[float, typer.Option(min=0, max=1, help="Share of images that may be rejected.")] = 0.01,
    validate: Annotated[Literal["decode", "header", "none"], typer.Option(help="What an image has to pass.")] = "decode",
    max_side: Annotated[int | None, typer.Option(min=1, help="Make larger images smaller, as JPEG, pixels.")] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of those JPEGs.")] = 90,
    as_json: Json = False,
) -> None:
    """Build images into a shard set; interrupted, the same command finishes the rest. By default their bytes are kept.

    Example: care shards build photos/train sets/train
    """
    import shards

    shards.build(
        src, dest, workers=workers, shard_size=shard_size, seed=seed, max_rejects=max_rejects, validate=validate, max_side=max_side,
        quality=quality,
    )  # fmt: skip
    info(dest, as_json)


@app.command()
def info(path: Set, as_json: Json = False) -> None:
    """What is in a set: counts, classes, and every rejected file with its reason.

    Example: care shards info sets/train
    """
    import shards

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
    import shards

    problems = shards.verify(path)
    if problems:
        typer.echo("\n".join(problems))
        raise shards.ShardError(f"{path}: {len(problems)} problems; copy the set again, or remove it and build it again")
    typer.echo(f"{path} is intact")


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_text(part)}" for name, part in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
