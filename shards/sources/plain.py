"""Folders of images, or of tars."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from shards import storage
from shards.errors import ShardError
from shards.images import SUFFIXES
from shards.kinds import UNREAD_SUFFIXES, companions
from shards.misspelt import suggestion
from shards.once import list_deep
from shards.rejects import Reject, Rejection
from shards.sources.candidates import Candidate, Listing, suffix
from shards.sources.junk import is_junk
from shards.sources.layouts import read_layout
from shards.sources.metadata import read_metadata
from shards.sources.tars import (
    find_tars,
    list_tars,
    note_of_unread,
    outweigh,
    refuse_compressed,
)

# what was meant as an image, though perhaps nothing here reads it
_IMAGES = SUFFIXES | UNREAD_SUFFIXES


def list_folder(folder: str | Path) -> Listing:
    """The images in a folder at any depth, or if there are none, those in the tars in it.

    The class of an image is a folder that it is in, see ``read_layout``.

    Args:
        folder: a path or a URL.

    Returns:
        The images; files of other kinds, and what other programs left, are rejects.

    Raises:
        ShardError: There are neither images nor tars, or a tar is damaged.
    """
    sizes = list_deep(folder)
    root = str(folder).rstrip("/")
    candidates = [name for name in sizes if suffix(name) in _IMAGES]
    junk = {name for name in candidates if is_junk(name)}
    raw_twins = companions(candidates, SUFFIXES) - junk
    names = [name for name in candidates if name not in junk | raw_twins]
    tars = find_tars(sizes)
    if outweigh(tars, names, sizes):
        listing = list_tars(root, sizes)
        if listing.images or not names:
            return listing
    if not names:
        refuse_compressed(folder, sizes)
        raise ShardError(
            "wanted a folder of images, a CSV, a COCO JSON, a VOC list or tars at "
            f"{folder}, got {_what_is_there(folder, sizes)}; check the path{suggestion(folder)}"
        )
    layout = read_layout(names)
    images = [
        Candidate(f"{root}/{name}", name, size=sizes[name], class_name=class_name)
        for name, class_name in zip(names, layout.class_names, strict=True)
    ]
    rejects = [Rejection(Reject.JUNK, name) for name in junk]
    labels = read_metadata(root, sizes)
    others = (sizes.keys() - {*candidates, *labels.files}) | raw_twins
    rejects += [Rejection(Reject.OTHER_FILE, name) for name in others]
    notes = [*layout.notes, *labels.notes]
    if labels.class_names:
        images = [image._replace(class_name=labels.class_names.get(image.name)) for image in images]
        notes = [f"the classes are those of {labels.files[0]}", *labels.notes]
    notes += _notes_on_tables(sizes, labels.files)
    if tars:
        notes.append(note_of_unread(tars))
    form = "folders as classes" if any(layout.class_names) else "a folder without classes"
    if labels.class_names:
        form = f"a folder with {', '.join(labels.files[:3])}"
    return Listing(images, rejects, notes, is_table=bool(labels.class_names), form=form)


def _notes_on_tables(names: Collection[str], read: Collection[str]) -> list[str]:
    """What is to be said of tables that lie among images and were not read."""
    tables = [
        name
        for name in names
        if name not in read and suffix(name) in (".csv", ".tsv", ".jsonl", ".parquet")
    ]
    if not tables:
        return []
    more = f" and {len(tables) - 3:,} more" if len(tables) > 3 else ""
    return [
        f"tables that were not read: {', '.join(sorted(tables)[:3])}{more}; if the classes are in "
        "one, name it as the source"
    ]


def _what_is_there(folder: str | Path, names: Collection[str]) -> str:
    """What is in the place of a folder of images, for a message."""
    if names:
        endings = Counter(suffix(name) or "none" for name in names)
        some = ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common(3))
        more = ", …" if len(endings) > 3 else ""
        return f"no file that ends as images do (.jpg, .png, .tif, .webp, …), but: {some}{more}"
    path = storage.locate(folder)
    if path.is_dir():
        return "an empty one"
    if path.exists():
        return "a file (unpack it first)"
    return "nothing of that name"
