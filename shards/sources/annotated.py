"""Lists that say what is to be seen on images: which form one has, and the images of it."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from shards import storage
from shards.counted import images_that
from shards.errors import ShardError
from shards.once import listed_once
from shards.rejects import Reject, Rejection
from shards.sources.annotations import AnnotatedImage, Annotations
from shards.sources.candidates import Candidate, Listing, suffix
from shards.sources.coco import read_coco
from shards.sources.file_names import stem_of
from shards.sources.plain import list_folder
from shards.sources.rows import is_table
from shards.sources.voc import read_voc, read_voc_folder

# of documents in folders, whose other files are images; Roboflow's name is the second
_NAMES = ("annotations.json", "_annotations.coco.json")
# what an image that is named but not there is to a build
_UNREADABLE = (Reject.NO_IMAGE, Reject.NO_ANNOTATION)


@listed_once
def read_annotations(
    data: str | Path, *, image_root: str | Path | None = None
) -> Annotations | None:
    """What an annotated list says.

    Args:
        data: a COCO JSON, whose images are looked for around it; a folder with such an
            ``annotations.json``; a VOC list such as ``VOC2007/ImageSets/Main/trainval.txt``, or a
            folder of images and VOC's annotations without lists.
        image_root: the folder of a COCO JSON's images, where they are not found.

    Returns:
        What it says, or None if ``data`` is something else.

    Raises:
        ShardError: It is such a file by its name, but not by its content, or none of its images is
            there. In a folder an ``annotations.json`` of another kind is something else.
    """
    path = storage.locate(data)
    root = None if image_root is None else storage.locate(image_root)
    document = _document_in(path)
    if document is None and path.is_dir():
        annotations = read_voc_folder(path)
    elif document is not None:
        annotations = read_coco(document, root)
    elif path.is_file() and path.suffix.lower() == ".json":
        return read_coco(path, root)
    elif path.is_file() and path.suffix == ".txt" and not is_table(path):
        annotations = read_voc(path)
    else:
        annotations = None
    return annotations


def list_annotated(annotations: Annotations) -> Listing:
    """The images of an annotated list, named by their paths below the folder of all.

    Where the list has no boxes, the class of an image is its only category.

    Args:
        annotations: the list.

    Returns:
        Its images; those that it names in vain are rejects.
    """
    paths = [str(image.path) for image in annotations.images]
    root = _common_folder(paths)
    is_labels = annotations.is_labels
    images = [
        Candidate(
            path,
            path.removeprefix(root),
            size=image.path.stat().st_size,
            class_name=_only_category(image, annotations) if is_labels else None,
        )
        for path, image in zip(paths, annotations.images, strict=True)
    ]
    rejects = [
        Rejection(Reject.UNREADABLE if reason in _UNREADABLE else reason, name)
        for reason, name in annotations.rejects
        if reason != Reject.UNKNOWN_IMAGE
    ]
    notes = [*annotations.notes, *_notes_on_labels(annotations)]
    form = "a list of Pascal VOC" if annotations.voc else f"COCO, {annotations.path.name}"
    return Listing(images, rejects, notes, is_table=is_labels, form=form, has_boxes=not is_labels)


def _notes_on_labels(annotations: Annotations) -> list[str]:
    """What is to be said of a list without boxes."""
    if not annotations.is_labels:
        return []
    if all(_only_category(image, annotations) is None for image in annotations.images):
        return [
            "its annotations have no boxes, and no image has just one category: they are not used"
        ]
    notes = ["it has no boxes: its categories are the classes of its images"]
    several = sum(
        len({annotated.category for annotated in image.objects}) > 1 for image in annotations.images
    )
    if several:
        notes.append(f"{images_that(several, 'has', 'have')} several categories, and so no class")
    return notes


def list_annotated_folder(annotations: Annotations, folder: Path) -> Listing:
    """The images of a folder, where its annotations may list some of them only.

    Args:
        annotations: of the folder.
        folder: their folder.

    Returns:
        All images: every one is a sample, be it without boxes.
    """
    annotated = list_annotated(annotations)
    every = list_folder(folder)
    listed = {image.path: image for image in annotated.images}
    paths = {image.path for image in every.images}
    unlisted = len(paths - listed.keys())
    if not unlisted:
        root = _common_folder(list(listed))
        others = _others_in_folder(every, annotations, folder, root)
        return annotated._replace(rejects=[*annotated.rejects, *others])
    outside = [image for path, image in listed.items() if path not in paths]
    images = [*every.images, *outside]
    if annotations.is_labels:
        no_class = Candidate("", "")
        images = [
            image._replace(class_name=listed.get(image.path, no_class).class_name)
            for image in images
        ]
    root = _common_folder([image.path for image in images])
    named = [image._replace(name=image.path.removeprefix(root)) for image in images]
    counts = Counter(image.path for image in annotated.images)
    repeated = [path for path, count in counts.items() for _ in range(count - 1)]
    rejects = _others_in_folder(every, annotations, folder, root)
    rejects += _rejects_without_file(annotated.rejects, named)
    rejects += [Rejection(Reject.DUPLICATE, path.removeprefix(root)) for path in repeated]
    note = (
        f"{images_that(len(listed), 'has', 'have', total=len(listed) + unlisted)} annotations; the "
        "set has the others without boxes, and no evaluation of boxes uses them"
    )
    notes = [*every.notes, *annotated.notes, note]
    return annotated._replace(images=named, rejects=rejects, notes=notes)


def _others_in_folder(
    every: Listing, annotations: Annotations, folder: Path, root: str
) -> list[Rejection]:
    """The files of an annotated folder that are neither images nor what was read.

    Args:
        every: all that is in the folder.
        annotations: of the folder.
        folder: the folder.
        root: that of all images, which names are seen from.
    """
    return [
        Rejection(reject.reason, _name_seen_from(root, f"{folder}/{reject.name}"))
        for reject in every.rejects
        if not _is_read(reject, annotations)
    ]


def notes_on_parts(listing: Listing) -> list[str]:
    """What is to be said of a folder whose subfolders have annotations, as Roboflow's have.

    Args:
        listing: of the folder.

    Returns:
        A line, or none.
    """
    stems = {stem_of(image.name) for image in listing.images}
    folders = set[str]()
    for reason, name in listing.rejects:
        folder, slash, file = name.rpartition("/")
        is_beside = suffix(file) == ".xml" and name[: -len(".xml")] in stems
        if reason == Reject.OTHER_FILE and slash and (file in _NAMES or is_beside):
            folders.add(folder)
    if not folders:
        return []
    some = ", ".join(sorted(folders)[:5])
    return [f"annotations in {some} are not read: build each of these folders alone for its boxes"]


def _is_read(reject: Rejection, annotations: Annotations) -> bool:
    """Whether a file of another kind is one that the annotations were read from."""
    is_annotation = reject.name == annotations.path.name
    if annotations.voc:
        is_annotation = reject.name.endswith(".xml")
    return is_annotation and reject.reason == Reject.OTHER_FILE


def _rejects_without_file(
    rejects: Sequence[Rejection], images: Sequence[Candidate]
) -> list[Rejection]:
    """What annotations name in vain: what has a file in the folder is a sample of its own."""
    files = {image.name.rpartition("/")[2] for image in images}
    files |= {name.rpartition(".")[0] for name in files}
    return [reject for reject in rejects if re.split(r"[/\\]", reject.name)[-1] not in files]


def _common_folder(paths: Iterable[str]) -> str:
    """The folder of all of some files, with a slash at its end."""
    folders = [path.rpartition("/")[0] + "/" for path in paths]
    # of characters up to a slash: commonpath would make s3:/ of s3://
    prefix = os.path.commonprefix(folders)  # noqa: RUF071
    return prefix.rpartition("/")[0] + "/"


def _name_seen_from(root: str, path: str) -> str:
    """The name of a file as seen from the folder of all images, which it may be outside of."""
    if path.startswith(root):
        return path.removeprefix(root)
    return os.path.relpath(path, root)


def _document_in(folder: Path) -> Path | None:
    """The COCO document of a folder that is no shard set."""
    for name in _NAMES:
        file = folder / name
        if file.is_file() and not (folder / "index.json").is_file() and _is_coco(file):
            return file
    return None


def _is_coco(file: Path) -> bool:
    """Whether a file is meant as a COCO document, however well that succeeded."""
    try:
        document = storage.read_json(file)
    except ShardError:
        return b'"images"' in storage.read_bytes(file)  # a damaged one is to be told
    return isinstance(document, dict) and "images" in document


def _only_category(image: AnnotatedImage, annotations: Annotations) -> str | None:
    """The one category that the objects of an image are of, or None."""
    categories = {annotated.category for annotated in image.objects}
    if len(categories) != 1 or not categories <= set(annotations.classes):
        return None
    return categories.pop()
