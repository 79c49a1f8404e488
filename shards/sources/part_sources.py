"""The parts of a source, such as ``train`` and ``val``, as sources of their own."""

import os
from pathlib import Path
from typing import NamedTuple
from shards import storage
from shards.images import SUFFIXES
from shards.once import list_deep
from shards.sources.annotated import read_annotations
from shards.sources.candidates import suffix
from shards.sources.junk import is_junk
from shards.sources.layouts import parts_among
from shards.sources.parts import part_of
from shards.sources.rows import is_table
from shards.sources.tars import find_tars, outweigh

_DEPTH = 4  # of the folders around parts


class PartSources(NamedTuple):
    """The parts of a source.

    Attributes:
        place: path or URL of the folder that they are in.
        names: their folders, those to train on first; [] if there are no two parts.
        beside: files of the source that are in none of them, but what other programs leave.
    """

    place: str
    names: list[str]
    beside: list[str]


NO_PARTS = PartSources("", [], [])


def find_parts(src: str | Path) -> PartSources:
    """Look for the parts of a source.

    Args:
        src: a path or URL.

    Returns:
        They; none of a file, of an annotated list, or of a folder that has classes.

    Raises:
        ShardError: A folder is unreadable, or an object store fails.
    """
    root = str(src).rstrip("/") or "/"
    if is_table(src) or suffix(root) in (".json", ".tar") or not _may_have_parts(root):
        return NO_PARTS
    sizes = list_deep(src)
    files = [name for name in sizes if not is_junk(name)]
    images = [name for name in files if suffix(name) in SUFFIXES]
    tars = find_tars(sizes)
    parts = parts_among(tars if outweigh(tars, images, sizes) else images)
    # a set's own files are no source of parts, and a folder with annotations is one
    if len(parts.roles) < 2 or "index.json" in sizes or read_annotations(src) is not None:
        return NO_PARTS
    names = sorted(parts.roles, key=lambda name: (parts.roles[name] != "train", name))
    folders = tuple(f"{parts.wrapper}{name}/" for name in names)
    outside = [name for name in files if not name.startswith(folders)]
    place = f"{root}/{parts.wrapper}".rstrip("/")
    return PartSources(place, names, sorted(outside))


def _may_have_parts(root: str) -> bool:
    """Whether a folder is called like a part, which is seen without a look at each file."""
    if storage.is_remote(root):
        return True
    depth_of_root = root.count("/")
    for place, folders, _ in os.walk(root):
        if any(map(part_of, folders)):
            return True
        if place.count("/") - depth_of_root >= _DEPTH:
            folders.clear()
    return False
