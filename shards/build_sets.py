"""One source into several sets: one for each of its parts, or some of every class held out.

Parts are folders such as ``train`` and ``Testing``. A set of its own for each is what evaluations
need; which folders are parts is decided in ``shards.sources.parts``.
"""

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple
from shards import storage
from shards.build import build, refuse_inside
from shards.errors import ShardError
from shards.hold_out import HoldOut
from shards.index import Index
from shards.once import listing_once
from shards.plan import Plan, make_plan
from shards.progress import warn
from shards.sources.part_sources import NO_PARTS, PartSources, find_parts

_PARTS: tuple[Literal["train", "val"], ...] = ("train", "val")


@listing_once()
def build_sets(
    src: str | Path,
    dest: str | Path,
    *,
    val_share: float | None = None,
    parts: bool = True,
    **options: Any,
) -> dict[str, Index]:
    """Build the sets that a source is for: of its parts, held out of it, or a single one.

    Interrupted, the same call goes on.

    Args:
        src: a source as of ``shards.build``, perhaps a folder with parts in it, such as ``train``
            and ``val``.
        dest: folder of the sets, or of the single one; a path or URL.
        val_share: share of every class that becomes ``dest/val``, the rest becomes ``dest/train``;
            of a class of two images and more at least one; None: nothing is held out.
        parts: whether each part becomes a set, or all of them one.
        **options: those of ``shards.build``.

    Returns:
        The index of each set by its folder in ``dest``: the name of the part, ``train`` and
        ``val`` of what is held out, "" of the single set that is ``dest`` itself.

    Raises:
        ShardError: There are parts, of which something is to be held out; or as ``shards.build``.
    """
    if not isinstance(src, str | os.PathLike):
        raise ShardError(
            f"wanted a path or a URL, got {type(src).__name__}; of an iterable shards.build makes "
            'a set, and of all but a tenth of each class one with hold_out=HoldOut("train", 0.1), '
            'of that tenth one with HoldOut("val", 0.1)'
        )
    part_sources = find_parts(src) if parts else NO_PARTS
    sources = _sources_of_sets(src, part_sources, val_share)
    if "" in sources:
        return {"": build(src, dest, **options)}
    refuse_inside(src, dest)
    if "index.json" in storage.listing(dest):
        raise ShardError(
            f"wanted a folder for several sets, got {dest}, which is a set itself; choose another "
            "DEST, or --no-parts for one set of all images"
        )
    _tell(src, part_sources)
    return {
        name: build(source, _below(dest, name), hold_out=hold_out, **options)
        for name, (source, hold_out) in sources.items()
    }


@listing_once()
def plan_sets(
    src: str | Path, *, val_share: float | None = None, parts: bool = True, **options: Any
) -> dict[str, Plan]:
    """What ``build_sets`` would build, without building it.

    Args:
        src: as of ``build_sets``, like what follows.
        val_share: share of every class that is held out.
        parts: whether each part becomes a set.
        **options: those of ``shards.plan.make_plan``.

    Returns:
        The plan of each set by its folder.

    Raises:
        ShardError: As ``build_sets``.
    """
    part_sources = find_parts(src) if parts else NO_PARTS
    sources = _sources_of_sets(src, part_sources, val_share)
    _tell(src, part_sources)
    return {
        name: make_plan(source, hold_out=hold_out, **options)
        for name, (source, hold_out) in sources.items()
    }


class _SetSource(NamedTuple):
    """What a set is built from: a source, and perhaps a part of it."""

    src: str | Path
    hold_out: HoldOut | None = None


def _sources_of_sets(
    src: str | Path, part_sources: PartSources, val_share: float | None
) -> dict[str, _SetSource]:
    """What each set is built from, by its folder.

    Raises:
        ShardError: There are parts, of which something is to be held out.
    """
    names = part_sources.names
    if val_share is not None and names:
        raise ShardError(
            f"{src} has the parts {', '.join(names)}, so that something is held out already; leave "
            "--val-share out for a set of each, or say --no-parts to mix and split them anew"
        )
    if val_share is not None:
        return {name: _SetSource(src, HoldOut(name, val_share)) for name in _PARTS}
    if names:
        return {name: _SetSource(_below(part_sources.place, name)) for name in names}
    return {"": _SetSource(src)}


def _below(folder: str | Path, name: str) -> str:
    """A path or URL in a folder."""
    return f"{str(folder).rstrip('/')}/{name}"


def _tell(src: str | Path, parts: PartSources) -> None:
    """Tell what is built, and what of the source is in none of the sets."""
    if not parts.names:
        return
    lines = [f"a set of each part: {', '.join(parts.names)} (--no-parts: one of all)"]
    if parts.beside:
        lines.append(
            f"{len(parts.beside):,} files beside the parts are in no set, such as {parts.beside[0]}"
        )
    for line in lines:
        warn(f"{src}: {line}")
