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
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple
from shards import storage
from shards.counted import images_that
from shards.errors import ShardError
from shards.hold_out import HoldOut
from shards.once import listed_once
from shards.rejects import Reject, Rejection, describe, group_by_reason
from shards.sources.annotated import (
    list_annotated,
    list_annotated_folder,
    notes_on_parts,
    read_annotations,
)
from shards.sources.annotations import Annotations
from shards.sources.candidates import Candidate, Listing, suffix
from shards.sources.held_out import samples_of_part, single_classes
from shards.sources.keys import unique_keys
from shards.sources.plain import list_folder
from shards.sources.rows import is_table
from shards.sources.tables import list_table
from shards.sources.tars import list_tar


class Source(NamedTuple):
    """All files of a source, each a sample or a reject.

    Attributes:
        samples: sorted by name, with keys and labels.
        classes: their sorted names, none without labels; a label is a position in them.
        rejects: sorted by reason and name.
        notes: what a user might not expect, one line each.
        hold_out: which part of all samples these are, None if they are all.
        form: what the source was recognised as, in words.
        every: the images of the whole source, of which these may be a share or a part.
        has_boxes: whether the source has boxes around objects, too.
    """

    samples: list[Candidate]
    classes: list[str]
    rejects: list[Rejection]
    notes: Sequence[str] = ()
    hold_out: HoldOut | None = None
    form: str = ""
    every: Sequence[Candidate] = ()
    has_boxes: bool = False


def find(
    src: str | Path,
    *,
    share: tuple[float, float] = (0, 1),
    classes: bool = True,
    image_root: str | Path | None = None,
    columns: Sequence[str] = (),
    hold_out: HoldOut | None = None,
) -> Source:
    """The images of a source.

    - A folder: the subfolders that images are in, at any depth, are classes, but not those around
      all classes and not parts such as ``train`` and ``Testing``. An image beside them has no
      class. Files are images by their suffix, hidden ones too, but not those in hidden folders and
      what else other programs leave. Links to folders are followed, but not up to a parent.
    - ``….csv``, ``tsv``, ``txt``, ``jsonl`` or ``parquet``: rows of an image's path, relative to
      the file, or URL and perhaps its class, see ``list_table``.
    - ``….json``, a folder with an ``annotations.json``, ``ImageSets/Main/….txt``, or a folder of
      VOC's annotations: the images of COCO and Pascal VOC; see ``shards.boxes``. They have labels
      only where COCO's categories have no boxes.
    - ``….tar``, or a folder of such without images but previews: a WebDataset, or class folders;
      image members are samples but for label maps, their class is the ``.cls``, or else a value of
      the ``.json`` or the ``.txt`` beside them, or the folder or the tar in the tar they are in.

    Args:
        src: a path or an fsspec URL.
        share: only files whose name's hash falls between these two parts of 1 are looked at, so
            that (0, 0.8) and (0.8, 1) split a source in two; classes and labels are those of the
            whole.
        classes: whether images have the classes that the source says, or none.
        image_root: the folder of the images of a table or a COCO JSON, where they are not around
            it.
        columns: the names of a table's columns of the image and of the class.
        hold_out: which part, where some images of each class are held out.

    Returns:
        Its samples, classes and rejects.

    Raises:
        ShardError: It is not one of these, cannot be listed, or holds no image.
    """
    listing = _list_source(src, image_root=image_root, columns=tuple(columns))
    return arrange(listing, str(src), share=share, classes=classes, hold_out=hold_out)


@listed_once
def _list_source(
    src: str | Path, *, image_root: str | Path | None, columns: tuple[str, ...]
) -> Listing:
    """Everything that a source lists, as of ``find``."""
    if is_table(src):
        root = None if image_root is None else storage.locate(image_root)
        return list_table(storage.locate(src), image_root=root, columns=columns)
    annotations = read_annotations(src, image_root=image_root)
    refuse_image_root(src, annotations, image_root)
    return _list_images(src, annotations)


def arrange(
    listing: Listing,
    src: str,
    *,
    share: tuple[float, float] = (0, 1),
    classes: bool = True,
    hold_out: HoldOut | None = None,
) -> Source:
    """The samples of what a source lists: sorted, with labels and names of their own.

    Args:
        listing: what is listed; of images of one name the first counts.
        src: what the source is called in messages.
        share: as of ``find``.
        classes: whether images have the classes that the source says, or none.
        hold_out: which part, where some images of each class are held out.

    Returns:
        The samples, classes and rejects.

    Raises:
        ShardError: There is no image in that share.
    """
    by_name = {image.name: image for image in reversed(listing.images)}  # the first of a name
    rejects = [*listing.rejects]
    for image in listing.images:
        if image is not by_name[image.name]:
            rejects.append(Rejection(Reject.DUPLICATE, image.name))
    images = [image for _, image in sorted(by_name.items())]
    if not classes:
        images = [image._replace(class_name=None) for image in images]
    class_names = _class_names(images, is_table=listing.is_table)
    shared = [image for image in images if is_in_share(image.name, share)]
    if not shared:
        why = f": {describe(group_by_reason(rejects))}" if rejects else ""
        raise ShardError(
            f"wanted images at {src}, got none in the share {share[0]:g}–{share[1]:g} of "
            f"{len(images)} ({len(rejects)} rejected{why}); check what it lists"
        )
    labels = {name: number for number, name in enumerate(class_names)}
    samples = [
        image._replace(label=labels.get(image.class_name or "", -1), key=key)
        for image, key in zip(shared, unique_keys(shared), strict=True)
    ]
    shared_rejects = [
        rejection for rejection in sorted(rejects) if is_in_share(rejection.name, share)
    ]
    notes = [*listing.notes, *_notes_on_classes(samples, class_names)]
    source = Source(
        samples,
        class_names,
        shared_rejects,
        notes,
        form=listing.form,
        every=images,
        has_boxes=listing.has_boxes,
    )
    return source if hold_out is None else _take_part(source, hold_out)


def _take_part(source: Source, hold_out: HoldOut) -> Source:
    """The part of a source that is trained on, or the one that is held out.

    It has the keys and the classes of the whole. What the source listed as no image is a reject of
    the part to train on.
    """
    samples = samples_of_part(source.samples, hold_out)
    single = single_classes(source.samples, source.classes)
    notes = [*source.notes]
    if hold_out.part == "val":
        notes = []
        if single:
            notes.append(
                f"{len(single):,} classes have one image, which is trained on: {single[0]}"
            )
    rejects = source.rejects if hold_out.part == "train" else []
    return source._replace(samples=samples, rejects=rejects, notes=notes, hold_out=hold_out)


def refuse_image_root(
    src: str | Path, annotations: Annotations | None, image_root: str | Path | None
) -> None:
    """A ``ShardError`` if a source, that is no table, has no use for a folder of images."""
    if image_root is not None and (annotations is None or annotations.voc):
        raise ShardError(
            f"wanted a COCO JSON or a table as the source whose images are in {image_root}, got "
            f"{src}; leave --image-root out, or name the file"
        )


def _list_images(src: str | Path, annotations: Annotations | None) -> Listing:
    """Everything that a source lists which is no table."""
    if annotations is not None:
        folder = storage.locate(src)
        if folder.is_dir():
            return list_annotated_folder(annotations, folder.absolute())
        return list_annotated(annotations)
    if suffix(str(src)) == ".tar":
        return list_tar(str(src))
    return _list_any_folder(src)


def _list_any_folder(folder: str | Path) -> Listing:
    """What is in a folder whose ``annotations.json``, if it has one, is none of COCO's."""
    listing = list_folder(folder)
    listing = listing._replace(notes=[*listing.notes, *notes_on_parts(listing)])
    left_out = {name for _, name in listing.rejects}
    if "annotations.json" not in left_out:
        return listing
    if "index.json" in left_out:
        # the shards of a set, whose boxes are for those who name it
        return listing._replace(has_boxes=True)
    note = "annotations.json is no COCO instances file: it was not read, there are no boxes"
    return listing._replace(notes=[*listing.notes, note])


def _class_names(images: Collection[Candidate], *, is_table: bool) -> list[str]:
    """The names of all classes, sorted as the source means them.

    Names that are all numbers are those that a dataset gave its classes, and sorted as numbers; but
    folders sort as ImageFolder's.
    """
    names = sorted({image.class_name for image in images if image.class_name is not None})
    if is_table and all(map(str.isdecimal, names)):
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
            f"{images_that(unclassified, 'has', 'have', total=len(samples))} no class: trained on, "
            "and left out of evaluations that need one"
        )
    return notes


def is_in_share(name: str, share: tuple[float, float]) -> bool:
    """Whether an image is in a share of a source.

    Args:
        name: of the image, whose hash decides.
        share: where the share starts and stops, in 0…1.
    """
    start, stop = share
    return start <= zlib.crc32(os.fsencode(name)) / 2**32 < stop
