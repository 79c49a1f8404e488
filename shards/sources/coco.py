"""COCO instances files, and what shard sets keep of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from shards import storage
from shards.errors import ShardError
from shards.rejects import Reject, Rejection, describe, group_by_reason
from shards.sources.annotations import (
    AnnotatedImage,
    AnnotatedObject,
    Annotations,
    finite_numbers,
)
from shards.sources.coco_form import in_coco_form
from shards.sources.coco_units import in_pixels
from shards.sources.image_files import find_files, list_folders
from shards.sources.image_sizes import OtherSizeError, SizeCheck, annotated_size
from shards.sources.masks import usable_mask


def read_coco(path: Path, image_root: Path | None = None) -> Annotations:
    """Read a COCO document whose images lie anywhere near it.

    Args:
        path: path of the document.
        image_root: the folder of its images, where the user says it.

    Returns:
        What it says. The sizes of images that have none are those of their files.

    Raises:
        ShardError: It is no such document, or none of its images is there.
    """
    form = in_coco_form(path, storage.read_json(path))
    entries = form.document["images"]
    located = find_files(path, [str(entry["file_name"]) for entry in entries], image_root)
    if entries and not any(located.files):
        why = describe(group_by_reason(located.rejects))
        raise ShardError(
            f"no image that {path} lists is there ({len(located.rejects)} entries left out: "
            f"{why}); looked in {list_folders(located.folders)}; name their folder by "
            "--image-root, or check the layout"
        )
    rejects = [*form.rejects, *located.rejects]
    sized = list[dict[str, Any]]()
    files = dict[Any, Path]()
    check = SizeCheck()
    for entry, file in zip(entries, located.files, strict=True):
        if file is None:
            sized.append(entry)
            continue
        try:
            sized.append(_with_size(entry, file, check))
            files[entry["id"]] = file
            continue
        except OtherSizeError:
            reason = Reject.OTHER_SIZE
        except OSError:
            reason = Reject.NO_IMAGE
        rejects.append(Rejection(reason, str(entry["file_name"])))
        sized.append(entry)  # its objects are left out with it
    document, is_scaled = in_pixels(form.document | {"images": sized})
    annotations = _parse(path, document, files)
    notes = [*located.notes, *check.notes()]
    if is_scaled:
        notes.append("all its boxes lie within 0…1: they are taken for parts of the images' sides")
    return annotations._replace(rejects=annotations.rejects + rejects, notes=notes)


def parse_coco(path: Path, document: Any) -> Annotations:
    """Take a COCO document apart whose images are not looked for.

    Args:
        path: path of the folder of its images.
        document: the JSON.

    Returns:
        What it says.

    Raises:
        ShardError: It is no such document.
    """
    form = in_coco_form(path, document)
    files = {entry["id"]: path / str(entry["file_name"]) for entry in form.document["images"]}
    annotations = _parse(path, form.document, files)
    return annotations._replace(rejects=annotations.rejects + form.rejects)


def _with_size(entry: dict[str, Any], file: Path, check: SizeCheck) -> dict[str, Any]:
    """An entry of COCO's ``images`` with a size.

    Raises:
        OtherSizeError: Its file has another size.
        OSError: It has no size, and its file has none either.
    """
    written = annotated_size(entry.get("width"), entry.get("height"))
    size = check.size(file, written)
    if size is None:
        raise OSError(f"{file} is no image")
    return entry if written else entry | {"width": size[0], "height": size[1]}


def _parse(path: Path, document: dict[str, Any], files: Mapping[Any, Path]) -> Annotations:
    """What a document in COCO's form says of the images that have files."""
    entries = {entry["id"]: entry for entry in document["images"]}
    categories = _category_names(document["categories"])
    rejects = list[Rejection]()
    for reason, name in document.get("rejects", []):
        rejects.append(Rejection(str(reason), str(name)))
    objects: dict[Any, list[AnnotatedObject]] = {number: [] for number in entries}
    for annotation in document["annotations"]:
        category_number = annotation["category_id"]
        # a category that is not listed has no name: its number is none that a class could have
        category = categories.get(category_number, f"#{category_number}")
        number = annotation["image_id"]
        if number in objects:
            difficult = bool(document.get("voc") and annotation.get("difficult"))
            objects[number].append(_parse_object(annotation, category, difficult))
        else:
            rejects.append(Rejection(Reject.UNKNOWN_IMAGE, f"image {number}: {category}"))
    images = list[AnnotatedImage]()
    for number, entry in entries.items():
        if number in files:
            size = annotated_size(entry.get("width"), entry.get("height")) or (0, 0)
            images.append(AnnotatedImage(files[number], size, objects[number], entry))
    classes = list(dict.fromkeys(categories.values()))
    return Annotations(path, document, classes, images, rejects)


def _category_names(categories: Sequence[dict[str, Any]]) -> dict[Any, str]:
    """The names of the categories, by number, in the order of the numbers."""
    is_text = {isinstance(category["id"], str) for category in categories}
    in_order = sorted(
        categories,
        key=lambda category: str(category["id"]) if len(is_text) > 1 else category["id"],
    )
    return {category["id"]: str(category["name"]) for category in in_order}


def _parse_object(annotation: dict[str, Any], category: str, difficult: bool) -> AnnotatedObject:
    """One of COCO's ``annotations``."""
    mask, mask_is_cut = usable_mask(annotation.get("segmentation"))
    box = finite_numbers(annotation["bbox"] or ())
    return AnnotatedObject(
        category,
        box=box if len(box) == 4 else (),
        difficult=difficult,
        crowd=bool(annotation.get("iscrowd")),
        mask=mask,
        mask_is_cut=mask_is_cut,
    )
