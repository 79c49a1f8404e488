"""What there is to build from, in an order that no file system decides: folders, CSV, COCO, VOC, other WebDatasets; local or by URL."""

import csv
import io
import os
import re
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from shards import boxes, storage
from shards.errors import ShardError
from shards.images import SUFFIXES, Reject, RejectError
from shards.index import stem

MAX_BYTES = (
    1 << 30
)  # larger files are refused unread: no image of a size that is decoded needs as much
# WebDataset ends a key at the first dot of the file name and skips folders named __like_this__; in keys.txt a line is a key.
_SPECIAL = re.compile(r"^_(?=_)|[%.\x00-\x1f\x7f\udc80-\udcff]")


class Candidate(NamedTuple):
    """An image that may become a sample: a file, a URL, or a tar's member; numbers are -1 where there is none, or not looked at."""

    path: str
    name: str
    label: int = -1
    key: str = ""
    size: int = -1  # bytes
    offset: int = -1  # in the tar
    text: str | None = None  # of its class


class Source(NamedTuple):
    """All files of a source, each a sample (sorted by name) or a reject; a label is a position in ``classes``, sorted names or none."""

    samples: list[Candidate]
    classes: list[str]
    rejects: list[tuple[Reject, str]]


def find(
    src: str | Path, *, share: tuple[float, float] = (0, 1), known: boxes.Annotations | None = None
) -> Source:
    """The images of ``src``, a path or an fsspec URL.

    - A folder: every immediate subfolder that holds an image, at any depth, is a class, an image beside them ``NO_CLASS``; without such
      folders there are no labels. Files are images by their suffix, hidden ones too. Links to folders are followed, but not up to a parent.
    - ``….csv``: rows of an image's path, relative to the file, or URL and perhaps its class; a head of path, url, file or image may lead.
    - ``….json``, a folder with an ``annotations.json``, or ``ImageSets/Main/….txt``: COCO's and Pascal VOC's images without labels.
    - ``….tar``, or a folder of such without images: a WebDataset; image members are samples, their class is the ``.cls`` beside them.

    Only files whose name's hash falls between the two parts of 1 in ``share`` are looked at, so that (0, 0.8) and (0.8, 1) split a
    source in two; classes and labels are those of the whole. ``known``: what ``boxes.read`` gave. Without images: ``ShardError``.
    """
    rejects, kind = list[tuple[Reject, str]](), suffix(str(src))
    if kind == ".csv":
        images = _table(storage.locate(src), rejects)
    elif known := known or boxes.read(src):
        files = [(str(path), path) for path, *_ in known.images]
        # of characters up to a slash: commonpath would make s3:/ of s3://
        above = (
            os.path.commonprefix([path.rpartition("/")[0] + "/" for path, _ in files]).rpartition(
                "/"
            )[0]
            + "/"
        )  # noqa: RUF071
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
        images = _members(str(src), rejects) if kind == ".tar" else _folder(src, rejects)
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


def read(image: Candidate) -> bytes:
    """The bytes of a candidate, or ``RejectError``; another ``ShardError`` if the object store fails."""
    if image.size > MAX_BYTES:
        raise RejectError(Reject.TOO_LARGE)
    if image.size < 0 and not storage.is_remote(image.path):  # no file: a pipe would block
        raise RejectError(Reject.UNREADABLE)
    part = (image.offset, image.offset + image.size) if image.offset >= 0 else ()
    try:
        return storage.read_bytes(image.path, *part)
    except OSError:
        raise RejectError(Reject.UNREADABLE) from None


def _folder(src: str | Path, rejects: list[Any]) -> list[Candidate]:
    root, sizes = storage.locate(src), storage.listing(src, deep=True)
    above, names = str(src).rstrip("/"), [name for name in sizes if suffix(name) in SUFFIXES]
    if names:
        rejects += [(Reject.OTHER_FILE, name) for name in sizes.keys() - set(names)]
        tops = (name.partition("/")[0] if "/" in name else None for name in names)
        return [
            Candidate(f"{above}/{name}", name, size=sizes[name], text=top)
            for name, top in zip(names, tops, strict=True)
        ]
    if tars := sorted(name for name in sizes if name.endswith(".tar") and "/" not in name):
        return [image for name in tars for image in _members(f"{above}/{name}", rejects)]
    there = (
        "an empty one"
        if root.is_dir()
        else "a file (unpack it first)"
        if root.exists()
        else "nothing of that name"
    )
    got = f"{len(sizes)} files of other kinds than {' '.join(sorted(SUFFIXES))}" if sizes else there
    raise ShardError(
        f"wanted a folder of images, a CSV, a COCO JSON, a VOC list or tars at {src}, got {got}; check the path"
    )


def _table(location: Path, rejects: list[Any]) -> list[Candidate]:
    try:
        text = storage.read_bytes(location).decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ShardError(
            f"{location} cannot be read as a CSV of image and class: {error}"
        ) from None
    images, head = (
        list[Candidate](),
        bool(rows) and rows[0][0].strip().lower() in ("path", "url", "file", "image"),
    )
    for name, *more in (map(str.strip, row) for row in rows[head:]):
        if len(more) > 1:
            raise ShardError(
                f"{location}: wanted rows of image and class, got {[name, *more]}; quote names that have commas"
            )
        path = name if storage.is_remote(name) else str(location.parent / name)
        if suffix(name) in SUFFIXES:
            size = (
                -1
                if storage.is_remote(path) or not Path(path).is_file()
                else Path(path).stat().st_size
            )
            images.append(
                Candidate(path, name, size=size, text=more[0] if more and more[0] else None)
            )
        else:
            rejects.append((Reject.OTHER_FILE, name))
    return images


def _members(path: str, rejects: list[Any]) -> list[Candidate]:
    above, images, labels, others = (
        PurePosixPath(path).stem,
        list[tuple[str, Candidate]](),
        dict[str, str](),
        list[tuple[str, str]](),
    )
    try:
        with storage.nearby(path) as near, near.open("rb") as file:
            if file.peek(2)[:2] == b"\x1f\x8b":
                raise tarfile.ReadError("it is compressed by gzip: unpack it first")
            tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (it ends with the file)
            for info in (member for member in tar if not member.isdir()):
                name, key = f"{above}/{info.name}", stem(info.name)
                if not info.isreg():
                    rejects.append((Reject.NOT_A_FILE, name))
                elif info.name.startswith("/") or ".." in PurePosixPath(info.name).parts:
                    rejects.append((Reject.UNSAFE_NAME, name))
                elif info.name == f"{key}.cls" and key not in labels:
                    labels[key] = tar.extractfile(info).read(1000).decode(errors="replace").strip()  # type: ignore[union-attr]
                elif suffix(info.name) in SUFFIXES:
                    images.append(
                        (key, Candidate(path, name, size=info.size, offset=info.offset_data))
                    )
                else:
                    others.append((key, name))
            file.seek(tar.offset)  # tarfile takes a damaged header for the end
            if len(end := file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE or any(end):
                raise tarfile.ReadError(f"damaged or cut off at byte {tar.offset}")
    except (tarfile.TarError, OSError, ValueError) as error:
        raise ShardError(
            f"{path} is not a whole tar: {error}; copy it again, or leave it out"
        ) from None
    keys = {key for key, _ in images}
    rejects += [(Reject.OTHER_FILE, name) for key, name in others if key not in keys]
    return [image._replace(text=labels.get(key)) for key, image in images]


def suffix(name: str) -> str:
    """``.jpg`` of ``a/b.JPG``; pathlib's takes ten times as long."""
    stem, dot, end = name.rpartition("/")[2].rpartition(".")
    return dot + end.lower() if stem and end else ""
