"""Folders of images, and CSV files that name them."""

import csv
import io
from pathlib import Path
from shards import storage
from shards.errors import ShardError
from shards.images import SUFFIXES
from shards.rejects import Reject, Rejection
from shards.sources.candidates import Candidate, Listing, suffix
from shards.sources.junk import is_junk
from shards.sources.layouts import read_layout
from shards.sources.tars import find_tars, list_tars, note_of_unread, outweigh

# of the first column, where a CSV has a head
_HEADS = ("path", "url", "file", "image")


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
    sizes = storage.listing(folder, deep=True)
    root = str(folder).rstrip("/")
    candidates = [name for name in sizes if suffix(name) in SUFFIXES]
    junk = {name for name in candidates if is_junk(name)}
    names = [name for name in candidates if name not in junk]
    tars = find_tars(sizes)
    if outweigh(tars, names, sizes):
        listing = list_tars(root, sizes)
        if listing.images or not names:
            return listing
    if not names:
        raise ShardError(
            "wanted a folder of images, a CSV, a COCO JSON, a VOC list or tars at "
            f"{folder}, got {_what_is_there(folder, len(sizes))}; check the path"
        )
    layout = read_layout(names)
    images = [
        Candidate(f"{root}/{name}", name, size=sizes[name], class_name=class_name)
        for name, class_name in zip(names, layout.class_names, strict=True)
    ]
    rejects = [Rejection(Reject.JUNK, name) for name in junk]
    others = sizes.keys() - {*candidates}
    rejects += [Rejection(Reject.OTHER_FILE, name) for name in others]
    notes = [*layout.notes]
    if tars:
        notes.append(note_of_unread(tars))
    return Listing(images, rejects, notes)


def list_table(location: Path) -> Listing:
    """The images that a CSV names.

    A row has the path of an image, relative to the file, or its URL, and perhaps its class. A first
    row that begins with path, url, file or image is a head.

    Args:
        location: where the CSV is.

    Returns:
        The images; names without a suffix of images are rejects.

    Raises:
        ShardError: The file cannot be read as such a CSV.
    """
    listing = Listing([], [], is_table=True)
    for name, *others in _read_rows(location):
        if len(others) > 1:
            raise ShardError(
                f"{location}: wanted rows of image and class, got {[name, *others]}; "
                "quote names that have commas"
            )
        if suffix(name) not in SUFFIXES:
            listing.rejects.append(Rejection(Reject.OTHER_FILE, name))
            continue
        path = name if storage.is_remote(name) else str(location.parent / name)
        class_name = others[0] if others and others[0] else None
        listing.images.append(Candidate(path, name, size=_local_size(path), class_name=class_name))
    return listing


def _read_rows(location: Path) -> list[list[str]]:
    """The rows of a CSV without its head and without the blanks around its cells."""
    try:
        text = storage.read_bytes(location).decode("utf-8-sig")
        rows = [_stripped(row) for row in csv.reader(io.StringIO(text), strict=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ShardError(
            f"{location} cannot be read as a CSV of image and class: {error}"
        ) from None
    if rows and rows[0][0].lower() in _HEADS:
        return rows[1:]
    return rows


def _stripped(row: list[str]) -> list[str]:
    return [cell.strip() for cell in row]


def _local_size(path: str) -> int:
    """How many bytes a local file has, or -1 of a URL and of what is no file."""
    if storage.is_remote(path) or not Path(path).is_file():
        return -1
    return Path(path).stat().st_size


def _what_is_there(folder: str | Path, files: int) -> str:
    """What is in the place of a folder of images, for a message."""
    if files:
        return f"{files} files of other kinds than {' '.join(sorted(SUFFIXES))}"
    path = storage.locate(folder)
    if path.is_dir():
        return "an empty one"
    if path.exists():
        return "a file (unpack it first)"
    return "nothing of that name"
