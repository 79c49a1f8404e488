"""One source into several sets: one for each of its parts, or some of every class held out.

Parts are folders such as ``train`` and ``Testing``. A set of its own for each is what evaluations
need; which folders are parts is decided in ``shards.sources.parts``.
"""

from pathlib import Path
from typing import Any, Literal
from rich.markup import escape
from shards import storage
from shards.build import build, refuse_inside
from shards.errors import ShardError
from shards.hold_out import HoldOut
from shards.index import Index
from shards.progress import console
from shards.sources.part_sources import NO_PARTS, PartSources, find_parts

_PARTS: tuple[Literal["train", "val"], ...] = ("train", "val")


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
    part_sources = find_parts(src) if parts else NO_PARTS
    names = part_sources.names
    if val_share is None and not names:
        return {"": build(src, dest, **options)}
    if val_share is not None and names:
        raise ShardError(
            f"{src} has the parts {', '.join(names)}, so that something is held out already; leave "
            "--val-share out for a set of each, or say --no-parts to mix and split them anew"
        )
    refuse_inside(src, dest)
    if "index.json" in storage.listing(dest):
        raise ShardError(
            f"wanted a folder for several sets, got {dest}, which is a set itself; choose another "
            "DEST, or --no-parts for one set of all images"
        )
    if val_share is not None:
        return {
            name: build(src, _below(dest, name), hold_out=HoldOut(name, val_share), **options)
            for name in _PARTS
        }
    _tell(src, part_sources)
    return {
        name: build(_below(part_sources.place, name), _below(dest, name), **options)
        for name in names
    }


def _below(folder: str | Path, name: str) -> str:
    """A path or URL in a folder."""
    return f"{str(folder).rstrip('/')}/{name}"


def _tell(src: str | Path, parts: PartSources) -> None:
    """Tell what is built, and what of the source is in none of the sets."""
    lines = [f"a set of each part: {', '.join(parts.names)} (--no-parts: one of all)"]
    if parts.beside:
        lines.append(
            f"{len(parts.beside):,} files beside the parts are in no set, such as {parts.beside[0]}"
        )
    for line in lines:
        console.print(f"[yellow]{escape(f'{src}: {line}')}", soft_wrap=True)
