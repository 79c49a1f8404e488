"""What there is to build from: an image folder, with or without class folders, in an order that no file system decides."""

import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from shards.errors import ShardError
from shards.images import SUFFIXES, Reject
from shards.storage import local

MAX_BYTES = 1 << 30
"""Larger files are refused unread: no image of a size that is decoded needs as much."""


class Candidate(NamedTuple):
    """An image file that may become a sample."""

    path: Path
    name: str
    """Its path below the source, with ``/``."""
    label: int
    """Its class number, or -1."""
    key: str
    """Its name in the shard set, unique."""
    size: int
    """Bytes, or -1 where it cannot be looked at."""


class Source(NamedTuple):
    """All files of a source: every one is a candidate or a reject."""

    samples: list[Candidate]
    """Sorted by name."""
    classes: list[str]
    """Class names, sorted; a label is a position in it. Empty for a flat folder."""
    rejects: list[tuple[Reject, str]]


def folder(src: str | Path, *, share: tuple[float, float] = (0, 1)) -> Source:
    """The images below ``src``.

    Every immediate subfolder that holds an image, at any depth, is a class; images beside class folders are rejected as
    ``NO_CLASS``. Without class folders the images of ``src`` itself are samples without a label. Files are images by their
    suffix, hidden ones too. Links to folders are followed, but not up to one of their own parents.

    Args:
        src: the folder.
        share: only files whose name's hash falls between these two parts of 1 are looked at, so that (0, 0.8) and (0.8, 1)
            split a folder in two; classes and labels are those of the whole.

    Raises:
        ShardError: ``src`` is not a folder, cannot be listed, or holds no image.
    """
    root = local(src)
    if not root.is_dir():
        got = "a file; unpack it first" if root.exists() else "nothing of that name; check the path"
        raise ShardError(f"wanted a folder of images at {src}, got {got}")
    sizes = dict(sorted(_files(root, "", frozenset())))
    images = [name for name in sizes if PurePosixPath(name).suffix.lower() in SUFFIXES]
    if not images:
        got = f"{len(sizes)} files of other kinds" if sizes else "an empty one"
        raise ShardError(f"wanted a folder of images ({' '.join(sorted(SUFFIXES))}) at {src}, got {got}; check the path")
    classes = sorted({name.partition("/")[0] for name in images if "/" in name})
    label = {name: number for number, name in enumerate(classes)}
    sizes = {name: size for name, size in sizes.items() if share[0] <= zlib.crc32(os.fsencode(name)) / 2**32 < share[1]}
    images = [name for name in images if name in sizes]
    if not images:
        raise ShardError(f"no image at {src} falls into the share {share[0]:g}–{share[1]:g}; use more images or a larger share")
    names = [name for name in images if "/" in name or not classes]
    samples = [
        Candidate(root / name, name, label.get(name.partition("/")[0], -1), key, sizes[name])
        for name, key in zip(names, _keys(names), strict=True)
    ]
    unclassed = set(images) - set(names)
    others = sizes.keys() - set(images)
    rejects = [(Reject.NO_CLASS, name) for name in sorted(unclassed)] + [(Reject.OTHER_FILE, name) for name in sorted(others)]
    return Source(samples, classes, rejects)


def read(path: Path) -> tuple[bytes, Reject | None]:
    """The bytes of a candidate, or why there are none."""
    try:
        if not path.is_file():  # gone, a dead link, or a pipe that would block
            return b"", Reject.UNREADABLE
        if path.stat().st_size > MAX_BYTES:
            return b"", Reject.TOO_LARGE
        return path.read_bytes(), None
    except OSError:
        return b"", Reject.UNREADABLE


def _files(directory: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, int]]:
    try:
        status = directory.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        with os.scandir(directory) as listing:
            entries = [(entry.name, -1 if entry.is_dir() else _size(entry), entry.is_dir()) for entry in listing]
    except OSError as error:
        raise ShardError(f"cannot list {directory}: {error.strerror or error}; make it readable or move it out of the source") from error
    for name, size, is_folder in entries:
        if is_folder:
            yield from _files(directory / name, f"{prefix}{name}/", above | {here})
        else:
            yield prefix + name, size


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:
        return -1


# WebDataset ends a key at the first dot of the file name and skips folders named __like_this__; in keys.txt a line is a key.
_SPECIAL = re.compile(r"^_(?=_)|[%.\x00-\x1f\x7f\udc80-\udcff]")


def _keys(names: Sequence[str]) -> list[str]:
    """A key for every one of the sorted ``names``; where an earlier name took it, the suffix joins it."""
    taken: dict[str, None] = {}
    for name in names:
        stem, whole = (_SPECIAL.sub(_percent, text) for text in (name.removesuffix(PurePosixPath(name).suffix), name))
        taken[whole if stem in taken else stem] = None
    return list(taken)


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in os.fsencode(match[0]))
