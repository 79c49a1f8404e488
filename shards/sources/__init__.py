"""What there is to build from, local or by URL.

Here live the parsers of folders, CSVs, COCO, Pascal VOC and other WebDatasets, one room for each
form, and ``find``, which chooses between them. Each returns a value with what it read and what it
left out; nothing is written, and no image decoded. What classes, borders and masks mean is in
``shards.boxes``; how samples become a set, in ``shards.plan``.

Invariant: the order, names and labels of the samples are decided by the source alone, never by a
file system; every file is a sample or a reject. ``tests/shards/test_sources.py`` and
``tests/shards/test_foreign.py`` hold it.
"""

import os
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from shards import storage
from shards.errors import ShardError
from shards.rejects import Reject, Rejection
from shards.sources.annotations import Annotations
from shards.sources.candidates import Candidate, Listing, suffix
from shards.sources.coco import parse_coco
from shards.sources.plain import list_folder, list_table
from shards.sources.tars import list_tar
from shards.sources.voc import read_voc

# WebDataset ends a key at the first dot of the file name and skips folders named __like_this__; in
# keys.txt a line is a key
_SPECIAL = re.compile(r"^_(?=_)|[%.\x00-\x1f\x7f\udc80-\udcff]")


class Source(NamedTuple):
    """All files of a source, each a sample or a reject.

    Attributes:
        samples: sorted by name, with keys and labels.
        classes: their sorted names, none without labels; a label is a position in them.
        rejects: sorted by reason and name.
        notes: what a user might not expect, one line each.
    """

    samples: list[Candidate]
    classes: list[str]
    rejects: list[Rejection]
    notes: Sequence[str] = ()


def find(
    src: str | Path,
    *,
    share: tuple[float, float] = (0, 1),
    annotations: Annotations | None = None,
    classes: bool = True,
) -> Source:
    """The images of a source.

    - A folder: the subfolders that images are in, at any depth, are classes, but not those around
      all classes and not parts such as ``train`` and ``Testing``. An image beside them has no
      class. Files are images by their suffix, hidden ones too, but not those in hidden folders and
      what else other programs leave. Links to folders are followed, but not up to a parent.
    - ``….csv``: rows of an image's path, relative to the file, or URL and perhaps its class; a head
      of path, url, file or image may lead.
    - ``….json``, a folder with an ``annotations.json``, or ``ImageSets/Main/….txt``: the images of
      COCO and Pascal VOC without labels; see ``shards.boxes``.
    - ``….tar``, or a folder of such without images: a WebDataset; image members are samples, their
      class is the ``.cls`` beside them.

    Args:
        src: a path or an fsspec URL.
        share: only files whose name's hash falls between these two parts of 1 are looked at, so
            that (0, 0.8) and (0.8, 1) split a source in two; classes and labels are those of the
            whole.
        annotations: what ``read_annotations`` gave of ``src``, so that it is not read again.
        classes: whether images have the classes that the source says, or none.

    Returns:
        Its samples, classes and rejects.

    Raises:
        ShardError: It is not one of these, cannot be listed, or holds no image.
    """
    listing = _list_images(src, annotations)
    by_name = {image.name: image for image in reversed(listing.images)}  # the first of a name
    rejects = [*listing.rejects]
    for image in listing.images:
        if image is not by_name[image.name]:
            rejects.append(Rejection(Reject.DUPLICATE, image.name))
    images = [image for _, image in sorted(by_name.items())]
    if not classes:
        images = [image._replace(class_name=None) for image in images]
    class_names = _class_names(images, is_table=listing.is_table)
    shared = [image for image in images if _is_in_share(image.name, share)]
    if not shared:
        examples = [tuple(rejection) for rejection in rejects[:3]]
        raise ShardError(
            f"wanted images at {src}, got none in the share {share[0]:g}–{share[1]:g} of "
            f"{len(images)} ({len(rejects)} rejected: {examples}); check what it lists"
        )
    labels = {name: number for number, name in enumerate(class_names)}
    samples = [
        image._replace(label=labels.get(image.class_name or "", -1), key=key)
        for image, key in zip(shared, _unique_keys(shared), strict=True)
    ]
    shared_rejects = [
        rejection for rejection in sorted(rejects) if _is_in_share(rejection.name, share)
    ]
    notes = [*listing.notes, *_notes_on_classes(samples, class_names)]
    return Source(samples, class_names, shared_rejects, notes)


def read_annotations(data: str | Path) -> Annotations | None:
    """What an annotated list says.

    Args:
        data: a COCO instances JSON (images beside it, in ``images`` beside it, or in COCO's own
            folder layout), a folder with such an ``annotations.json``, or a VOC list such as
            ``VOC2007/ImageSets/Main/trainval.txt``.

    Returns:
        What it says, or None if ``data`` is something else.

    Raises:
        ShardError: It is such a file by its name, but not by its content. In a folder an
            ``annotations.json`` of another kind is something else.
    """
    path = storage.locate(data)
    if (path / "annotations.json").is_file() and not (path / "index.json").is_file():
        path /= "annotations.json"
        if not _is_coco(path):
            return None
    if not path.is_file():
        return None
    if path.suffix == ".txt":
        return read_voc(path)
    if path.suffix != ".json":
        return None
    folder = path.absolute().parent
    part = path.stem.removeprefix("instances_")
    return parse_coco(
        path, storage.read_json(path), [folder, folder / "images", folder.parent / part]
    )


def _is_coco(path: Path) -> bool:
    """Whether a file is meant as a COCO document, however well that succeeded."""
    try:
        document = storage.read_json(path)
    except ShardError:
        return b'"images"' in storage.read_bytes(path)  # a damaged one is to be told
    return isinstance(document, dict) and "images" in document


def _list_images(src: str | Path, annotations: Annotations | None) -> Listing:
    """Everything that a source of any form lists."""
    kind = suffix(str(src))
    if kind == ".csv":
        return list_table(storage.locate(src))
    annotations = annotations or read_annotations(src)
    if annotations is not None:
        listing = _list_annotated(annotations)
        if storage.locate(src).is_dir():
            return _with_unlisted(listing, storage.locate(src).absolute())
        return listing
    if kind == ".tar":
        return list_tar(str(src))
    return _list_any_folder(src)


def _list_any_folder(folder: str | Path) -> Listing:
    """What is in a folder whose ``annotations.json``, if it has one, is none of COCO's."""
    listing = list_folder(folder)
    if any(name == "annotations.json" for _, name in listing.rejects):
        note = "annotations.json is no COCO instances file: it was not read, there are no boxes"
        return listing._replace(notes=[*listing.notes, note])
    return listing


def _with_unlisted(annotated: Listing, folder: Path) -> Listing:
    """The images of a folder, where its annotations list some of them only.

    Args:
        annotated: the images that are listed.
        folder: their folder.

    Returns:
        All images, or ``annotated`` where it has all.
    """
    every = list_folder(folder)
    listed = {image.path for image in annotated.images}
    unlisted = sum(image.path not in listed for image in every.images)
    if not unlisted:
        return annotated
    paths = {image.path for image in every.images}
    outside = {image.path: image for image in annotated.images if image.path not in paths}
    counts = Counter(image.path for image in annotated.images)
    repeated = [path for path, count in counts.items() for _ in range(count - 1)]
    note = (
        f"annotations.json lists {len(listed):,} images; {unlisted:,} others are in the set "
        "without boxes, and no evaluation of boxes uses them"
    )
    images = [*every.images, *outside.values()]
    root = _common_folder([image.path for image in images])
    named = [image._replace(name=image.path.removeprefix(root)) for image in images]
    rejects = every.rejects + annotated.rejects
    rejects += [Rejection(Reject.DUPLICATE, path.removeprefix(root)) for path in repeated]
    return Listing(named, rejects, [*every.notes, note])


def _list_annotated(annotations: Annotations) -> Listing:
    """The images of an annotated list, named by their paths below the folder of all."""
    paths = [str(image.path) for image in annotations.images]
    root = _common_folder(paths)
    images = [
        Candidate(path, path.removeprefix(root), size=image.path.stat().st_size)
        for path, image in zip(paths, annotations.images, strict=True)
    ]
    rejects = [
        Rejection(Reject.UNREADABLE, name)
        for reason, name in annotations.rejects
        if reason != Reject.UNKNOWN_IMAGE
    ]
    return Listing(images, rejects)


def _common_folder(paths: Iterable[str]) -> str:
    """The folder of all of some files, with a slash at its end."""
    folders = [path.rpartition("/")[0] + "/" for path in paths]
    # of characters up to a slash: commonpath would make s3:/ of s3://
    prefix = os.path.commonprefix(folders)  # noqa: RUF071
    return prefix.rpartition("/")[0] + "/"


def _class_names(images: Collection[Candidate], *, is_table: bool) -> list[str]:
    """The names of all classes, sorted as the source means them.

    Names that are all numbers are those that a dataset gave its classes, and sorted as numbers; but
    folders sort as ImageFolder's.
    """
    names = sorted({image.class_name for image in images if image.class_name is not None})
    from_folders = not is_table and all(image.offset < 0 for image in images)
    if not from_folders and all(map(str.isdecimal, names)):
        names.sort(key=int)
    return names


def _notes_on_classes(samples: Collection[Candidate], classes: Sequence[str]) -> list[str]:
    """What is to be said of images without a class, and of a single class."""
    notes = list[str]()
    if len(classes) == 1:
        notes.append(
            f"all classes are one, {classes[0]}: whatever the encoder, every accuracy would be "
            "100 %; use the folder above the classes, or --no-classes if it is none"
        )
    unclassified = sum(image.label < 0 for image in samples)
    if classes and unclassified:
        notes.append(
            f"{unclassified:,} of {len(samples):,} images have no class: they are trained on, and "
            "left out of evaluations that need one"
        )
    return notes


def _is_in_share(name: str, share: tuple[float, float]) -> bool:
    """Whether the hash of a name falls into a part of a source."""
    start, stop = share
    return start <= zlib.crc32(os.fsencode(name)) / 2**32 < stop


def _unique_keys(images: Iterable[Candidate]) -> list[str]:
    """The names of samples in the set: without the suffix, unless an earlier one took that."""
    keys = dict[str, None]()  # as an ordered set
    for image in images:
        key_with_suffix = _SPECIAL.sub(_escape, image.name)
        key = key_with_suffix
        if suffix(image.name):
            key = key_with_suffix.rpartition("%2E")[0]
        if key in keys:
            key = key_with_suffix
        keys[key] = None
    return list(keys)


def _escape(special: re.Match[str]) -> str:
    """A character that no key may have, as in a URL."""
    return f"%{os.fsencode(special[0])[0]:02X}"
