"""`care shards`: image folders into sets, and what is in a set."""

from collections.abc import Mapping
from typing import Annotated, Any
import typer
import shards
from flows.cli.options import Json, SetPath, add_command, new_app
from flows.cli.survey import show_surveys, survey_sets
from flows.cli.tables import print_json, table
from shards import boxes, storage
from shards.errors import Misuse
from shards.once import listing_once
from shards.printable import printable
from shards.progress import say

_NAMED = 20  # rejected files of one reason that are shown
# what facts of pixels are called in a table
_WORDS = {
    "converted": "converted by the rule",
    "faded": "with few gray levels left of many",
    "looked at": "looked at",
    "nearly constant": "of these nearly constant",
    "integers": "integers that become black, white",
    "floats": "floats that become black, white",
    "percentiles": "percentiles that become black, white",
}

app = new_app("Image folders into WebDataset shards with an index.", no_args_is_help=True)


@listing_once()
def _build(
    src: Annotated[
        str,
        typer.Argument(
            metavar="SRC", help="Image folder, CSV, COCO JSON, VOC list, tars; path or URL."
        ),
    ],
    dest: Annotated[
        str, typer.Argument(metavar="DEST", help="New or empty folder for the set; path or URL.")
    ] = "",
    val_share: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of every class that becomes DEST/val, the rest DEST/train; such as 0.1.",
        ),
    ] = None,
    parts: Annotated[
        bool,
        typer.Option(
            help="A set of each part of SRC where there are some, DEST/train, DEST/val; or one."
        ),
    ] = True,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what would be read, and build nothing."),
    ] = False,
    preview: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw some images as networks will see them, with their classes and boxes.",
        ),
    ] = None,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Build the sets of a source, or show what they would be."""
    if not dest and not dry_run:
        raise Misuse(f"wanted DEST, the folder for the set of {src}, or --dry-run; got neither")
    if dry_run or preview is not None:
        surveys = survey_sets(
            src, val_share=val_share, parts=parts, settings=settings, preview=preview
        )
        if dry_run:
            show_surveys(src, surveys, settings["max_rejects"], as_json)
            return
    indexes = shards.build_sets(src, dest, val_share=val_share, parts=parts, **settings)
    if "" in indexes:
        info(dest, as_json)
        if not as_json:
            _say_next(dest, "", indexes)
        return
    paths = {name: f"{dest.rstrip('/')}/{name}" for name in indexes}
    if as_json:
        print_json({name: _all_facts(path) for name, path in paths.items()})
        return
    for path in paths.values():
        info(path)
    first, *others = paths.values()
    _say_next(first, others[0] if others else "", indexes)


def _say_next(train: str, val: str, indexes: Mapping[str, shards.Index]) -> None:
    """Say what sets are for.

    Args:
        train: path of the set to train on.
        val: path of the one to evaluate on, "" without one.
        indexes: of the sets.
    """
    say(f"pre-train on it: care pretrain {train} runs/NAME")
    if not val:
        return
    if all(len(index.classes) > 1 for index in indexes.values()):
        say(f"then judge it: care evaluate knn runs/NAME --train {train} --val {val}")
    if all("annotations.json" in index.sha256 for index in indexes.values()):
        say(f"or its objects: care evaluate detect runs/NAME --train {train} --val {val}")


add_command(
    app,
    shards.build,
    _build,
    "care shards build photos sets --val-share 0.1",
    skip=["share", "hold_out"],
    names={"value_range": "--range"},
)


@app.command()
def info(path: SetPath, as_json: Json = False) -> None:
    """What is in a set: counts, classes, and what was rejected by its reason.

    Of a long list its beginning is shown; --json prints all.

    Example: care shards info sets/train
    """
    facts = _all_facts(path)
    if as_json:
        print_json(facts)
        return
    rejects = facts.pop("rejects")
    if "pixels" in facts:
        facts["pixels"] = {_WORDS.get(name, name): fact for name, fact in facts["pixels"].items()}
    if not facts["classes"]:
        facts.pop("without class")  # they are all that there are
    table(f"shard set {path}", ("", ""), [(name, _text(value)) for name, value in facts.items()])
    rejected = list[tuple[str, str]]()
    for reason, names in rejects.items():
        rejected += [(reason, printable(name)) for name in names[:_NAMED]]
        if len(names) > _NAMED:
            rejected.append((reason, f"… and {len(names) - _NAMED:,} more"))
    if rejected:
        table("rejected", ("reason", "file"), rejected)
    if any(len(names) > _NAMED for names in rejects.values()):
        typer.echo(f"all of them: care shards info {path} --json")


@app.command()
def verify(path: SetPath, as_json: Json = False) -> None:
    """Read all of a set and check every byte against its index; exit code 1 when anything is wrong.

    Example: care shards verify sets/train
    """
    problems = shards.verify(path)
    if "index.json" not in storage.listing(path):
        # there is no set to be copied or built again
        raise shards.ShardError(problems[0])
    if as_json:
        print_json({"path": path, "intact": not problems, "problems": problems})
    elif problems:
        typer.echo("\n".join(map(printable, problems)))
    if problems:
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise shards.ShardError(
            f"{path}: {count}; copy the set again, or remove it and build it again"
        )
    if not as_json:
        typer.echo(f"{path} is intact")


def _all_facts(path: str) -> dict[str, Any]:
    """What a set holds, with its boxes and all that is left out of it."""
    index = shards.open(path).index
    facts = _facts(index)
    if "annotations.json" in index.sha256:
        annotated = boxes.load(path)
        facts["boxes"] = _boxes(annotated)
        facts["boxes by class"] = _boxes_by_class(annotated)
    return facts | {"rejects": dict(index.rejects)}


def _facts(index: shards.Index) -> dict[str, Any]:
    """What a set holds, for people and as JSON."""
    labels = index.samples["label"]
    part = {} if index.hold_out is None else {"part": str(index.hold_out)}
    return (
        part
        | {
            "kept": len(index.samples),
            "seen": index.seen,
            "rejected": {reason: len(names) for reason, names in index.rejects.items()},
            "shards": len(index.shards),
            "bytes": sum(shard.filesize for shard in index.shards),
            "classes": {
                name: int((labels == label).sum()) for label, name in enumerate(index.classes)
            },
            "without class": int((labels < 0).sum()),
            "digest": index.digest,
            "seed": index.seed,
        }
        | _pixels(index)
    )


def _pixels(index: shards.Index) -> dict[str, Any]:
    """How images became 8 bits and three channels, and how many show little."""
    document = index.pixels.document()
    if not document:
        return {}
    names = {"looked_at": "looked at", "flat": "nearly constant"}
    rule = document.pop("rule")
    counts = {names.get(name, name): count for name, count in document.items()}
    return {"pixels": counts | rule}


def _boxes(data: boxes.BoxSet) -> dict[str, int]:
    """How many boxes of a set count in an evaluation, are ignored, and are left out and why."""
    ignored = sum(int(picture.ignored.sum()) for picture in data.pictures)
    counts = {"counted": sum(len(picture.boxes) for picture in data.pictures) - ignored}
    if ignored:
        counts["difficult or crowds"] = ignored
    return counts | {reason: len(names) for reason, names in data.rejects.items()}


def _boxes_by_class(data: boxes.BoxSet) -> dict[str, int]:
    """How many of the boxes that count are of each class."""
    counts = dict.fromkeys(data.classes, 0)
    for picture in data.pictures:
        for label in picture.labels[~picture.ignored]:
            counts[data.classes[label]] += 1
    return counts


def _text(value: object) -> str:
    """A fact as a cell of a table: lines of a dictionary, a number with thousands apart."""
    if isinstance(value, dict):
        return (
            "\n".join(f"{printable(name)}: {_text(part)}" for name, part in value.items()) or "none"
        )
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
