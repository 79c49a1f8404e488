"""What `care shards build --dry-run` prints of a source, and the contact sheet."""

import inspect
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any
import typer
from flows.cli.tables import print_json, table
from shards import storage
from shards.build import is_inside
from shards.build_sets import plan_sets
from shards.errors import Misuse
from shards.plan import make_plan
from shards.preview import contact_sheet
from shards.progress import warn
from shards.rejects import Rejection, group_by_reason
from shards.survey import Look, Survey, survey

_CLASSES = 30  # that are listed by name
_EXAMPLES = 5  # images, and names of each reason, that are listed


def survey_sets(
    src: str,
    *,
    val_share: float | None,
    parts: bool,
    settings: Mapping[str, Any],
    preview: str | None,
) -> dict[str, Survey]:
    """Look at what would be built, and draw some of it.

    Args:
        src: the source.
        val_share: as of ``shards.build_sets``.
        parts: as there.
        settings: options of ``shards.build``.
        preview: path or URL of a contact sheet; of several sets each has one of its own.

    Returns:
        What becomes of the source, by the folder of each set.

    Raises:
        Misuse: The sheet is to be no PNG, or in the source.
        ShardError: As of the build.
    """
    if preview is not None and PurePath(preview).suffix.lower() != ".png":
        raise Misuse(f"wanted a file such as sheet.png for --preview, got {preview}")
    if preview is not None and is_inside(preview, src):
        raise Misuse(
            f"the sheet {preview} would lie in the source {src}, and the next build take it for "
            "one of its images; choose a place outside of it"
        )
    names = inspect.signature(make_plan).parameters.keys() & settings.keys()
    options = {name: settings[name] for name in names}
    plans = plan_sets(src, val_share=val_share, parts=parts, **options)
    surveys = dict[str, Survey]()
    for name, plan in plans.items():
        surveys[name] = survey(plan)
        for note in surveys[name].notes:
            warn(f"{src}: {note}")
        if preview is None:
            continue
        file = preview if not name else f"{preview[: -len('.png')]}-{name}.png"
        classes = plan.source.classes
        if plan.annotations is not None:
            classes = [*dict.fromkeys(plan.annotations.classes)]
        images = surveys[name].images
        title = f"{src} {name}".rstrip()
        count = len(surveys[name].looks)
        sheet = contact_sheet(
            surveys[name].looks, classes, f"{title}: {count} of {images:,} images"
        )
        storage.write_bytes(storage.locate(file), sheet)
        typer.echo(f"contact sheet: {file}", err=True)
    return surveys


def show_surveys(src: str, surveys: Mapping[str, Survey], max_rejects: float, json: bool) -> None:
    """Print what would be built.

    Args:
        src: the source.
        surveys: by the folder of each set.
        max_rejects: share of the images that may be rejected.
        json: whether as one JSON value.
    """
    if json:
        facts = {name: _facts(content) for name, content in surveys.items()}
        print_json(facts.get("", facts))
        return
    for name, content in surveys.items():
        _show(f"{src} → {name}" if name else src, content, max_rejects)
    typer.echo("nothing was built: this was a dry run")


def _show(title: str, content: Survey, max_rejects: float) -> None:
    """Print what one set would be."""
    broken = [look for look in content.looks if look.image is None]
    rows = [
        ("read as", content.form),
        ("images", f"{content.images:,}"),
        ("classes", _counts(content.classes)),
        ("without class", f"{content.unclassified:,}"),
    ]
    if content.boxes:
        rows.append(("boxes", _counts(content.boxes)))
    if content.lost:
        share = content.lost / (content.lost + content.images)
        text = f"{content.lost:,} ({share:.2%}, {max_rejects:.2%} may be)"
        if share > max_rejects:
            text += "\nthe build would be refused: repair them, or --max-rejects"
        rows.append(("images left out", text))
    rows.append(("looked at", f"{len(content.looks):,} images, {len(broken)} of them are rejected"))
    table(title, ("", ""), rows)
    rejects = dict(content.rejects)
    looked_at = [(f"{look.reason}, of those looked at", look.sample.name) for look in broken]
    for reason, name in looked_at:
        rejects.setdefault(reason, []).append(name)
    if rejects:
        left_out = [(reason, f"{len(names):,}", _some(names)) for reason, names in rejects.items()]
        table("left out", ("reason", "files", "such as"), left_out)
    decoded = [look for look in content.looks if look.image is not None]
    examples = decoded[:: -(-len(decoded) // _EXAMPLES) or 1]  # of several classes
    content_column = "boxes" if content.boxes else "class"
    lines = [_example(look) for look in examples]
    if lines:
        table("examples", ("image", content_column, "pixels"), lines)


def _facts(content: Survey) -> dict[str, Any]:
    """What one set would be, as JSON."""
    broken = [look for look in content.looks if look.image is None]
    return {
        "form": content.form,
        "images": content.images,
        "classes": content.classes,
        "without class": content.unclassified,
        "boxes": content.boxes,
        "rejects": content.rejects,
        "notes": [*content.notes],
        "looked at": len(content.looks),
        "rejected of these": group_by_reason(
            [Rejection(look.reason, look.sample.name) for look in broken]
        ),
        "examples": [
            {"name": look.sample.name, "class": look.class_name or None, "size": look.image.size}
            for look in content.looks
            if look.image is not None
        ],
    }


def _example(look: Look) -> tuple[str, str, str]:
    """An image as a row of a table."""
    width, height = look.image.size if look.image else (0, 0)
    text = look.class_name or "none"
    if look.picture is not None:
        text = str(len(look.picture.boxes))
    return look.sample.name, text, f"{width} × {height}"


def _counts(counts: Mapping[str, int]) -> str:
    """Names with counts, a line each, and how many more there are."""
    lines = [f"{name}: {count:,}" for name, count in counts.items()]
    if len(lines) > _CLASSES:
        lines = [*lines[:_CLASSES], f"… and {len(lines) - _CLASSES:,} more"]
    return "\n".join(lines) or "none"


def _some(names: list[str]) -> str:
    """The first names of many, a line each."""
    lines = names[:_EXAMPLES]
    if len(names) > _EXAMPLES:
        lines = [*lines, "…"]
    return "\n".join(lines)
