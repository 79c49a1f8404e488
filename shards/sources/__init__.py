"""What there is to build from, in an order that no file system decides: folders, CSV, COCO, VOC, other WebDatasets; local or by URL."""

import os
import re
import zlib
from pathlib import Path
from typing import NamedTuple
from shards import storage
from shards.errors import ShardError
from shards.rejects import Reject
from shards.sources.annotations import Annotations
from shards.sources.candidates import Candidate, suffix
from shards.sources.coco import parse_coco
from shards.sources.plain import list_folder, list_table
from shards.sources.tars import list_tar
from shards.sources.voc import parse_voc

# WebDataset ends a key at the first dot of the file name and skips folders named __like_this__; in keys.txt a line is a key.
_SPECIAL = re.compile(r"^_(?=_)|[%.\x00-\x1f\x7f\udc80-\udcff]")


class Source(NamedTuple):
    """All files of a source, each a sample (sorted by name) or a reject; a label is a position in ``classes``, sorted names or none."""

    samples: list[Candidate]
    classes: list[str]
    rejects: list[tuple[Reject, str]]


def find(
    src: str | Path, *, share: tuple[float, float] = (0, 1), known: Annotations | None = None
) -> Source:
    """The images of ``src``, a path or an fsspec URL.

    - A folder: every immediate subfolder that holds an image, at any depth, is a class, an image beside them ``NO_CLASS``; without such
      folders there are no labels. Files are images by their suffix, hidden ones too. Links to folders are followed, but not up to a parent.
    - ``….csv``: rows of an image's path, relative to the file, or URL and perhaps its class; a head of path, url, file or image may lead.
    - ``….json``, a folder with an ``annotations.json``, or ``ImageSets/Main/….txt``: COCO's and Pascal VOC's images without labels.
    - ``….tar``, or a folder of such without images: a WebDataset; image members are samples, their class is the ``.cls`` beside them.

    Only files whose name's hash falls between the two parts of 1 in ``share`` are looked at, so that (0, 0.8) and (0.8, 1) split a
    source in two; classes and labels are those of the whole. ``known``: what ``read_annotations`` gave. Without images: ``ShardError``.
    """
    rejects, kind = list[tuple[Reject, str]](), suffix(str(src))
    if kind == ".csv":
        images = list_table(storage.locate(src), rejects)
    elif known := known or read_annotations(src):
        files = [(str(path), path) for path, *_ in known.images]
        folders = [path.rpartition("/")[0] + "/" for path, _ in files]
        # of characters up to a slash: commonpath would make s3:/ of s3://
        prefix = os.path.commonprefix(folders)  # noqa: RUF071
        above = prefix.rpartition("/")[0] + "/"
        images = [
            Candidate(path, path.removeprefix(above), size=file.stat().st_size)
            for path, file in files
        ]
        rejects += [
            (Reject.UNREADABLE, name)
            for reason, name in known.rejects
            if reason != Reject.UNKNOWN_IMAGE
        ]
    else:
        images = list_tar(str(src), rejects) if kind == ".tar" else list_folder(src, rejects)
    first = {image.name: image for image in reversed(images)}
    rejects += [
        (Reject.DUPLICATE, image.name) for image in images if image is not first[image.name]
    ]
    classes = sorted({image.text for image in first.values() if image.text is not None})
    if all(map(str.isdecimal, classes)) and (
        kind == ".csv" or any(image.offset >= 0 for image in images)
    ):
        classes.sort(
            key=int
        )  # numbers that a dataset gave its classes; folders sort as ImageFolder's
    label = {name: number for number, name in enumerate(classes)}
    rejects += [
        (Reject.NO_CLASS, image.name) for image in first.values() if classes and image.text is None
    ]
    images = [image for _, image in sorted(first.items()) if not classes or image.text is not None]
    names = (*first, *(name for _, name in rejects))
    shared = {
        name for name in names if share[0] <= zlib.crc32(os.fsencode(name)) / 2**32 < share[1]
    }
    if not (kept := [image for image in images if image.name in shared]):
        part = f"the share {share[0]:g}–{share[1]:g} of {len(images)} ({len(rejects)} rejected: {rejects[:3]})"
        raise ShardError(f"wanted images at {src}, got none in {part}; check what it lists")
    keys = dict[str, None]()  # in their order; where an earlier name took one, the suffix joins it
    for image in kept:
        whole = _SPECIAL.sub(lambda special: f"%{os.fsencode(special[0])[0]:02X}", image.name)
        short = whole.rpartition("%2E")[0] if suffix(image.name) else whole
        keys[whole if short in keys else short] = None
    samples = [
        image._replace(label=label.get(image.text or "", -1), key=key)
        for image, key in zip(kept, keys, strict=True)
    ]
    return Source(
        samples, classes, [(reason, name) for reason, name in sorted(rejects) if name in shared]
    )


def read_annotations(data: str | Path) -> Annotations | None:
    """What the COCO JSON, the folder with one, or the VOC list at ``data`` says; None where there is none, a ``ShardError`` of no sense."""
    path = storage.locate(data)
    if (path / "annotations.json").is_file() and not (path / "index.json").is_file():
        path /= "annotations.json"
    kind, folder = path.suffix if path.is_file() else "", path.absolute().parent
    if kind == ".txt":
        return parse_voc(path, folder.parent.parent)
    roots = folder, folder / "images", folder.parent / path.stem.removeprefix("instances_")
    return parse_coco(path, storage.read_json(path), *roots) if kind == ".json" else None
