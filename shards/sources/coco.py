"""COCO instances files, and what shard sets keep of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from shards.errors import ShardError
from shards.rejects import Reject, Rejection
from shards.sources.annotations import (
    AnnotatedImage,
    AnnotatedObject,
    Annotations,
    finite_numbers,
)


def parse_coco(path: Path, document: Any, roots: Sequence[Path] = ()) -> Annotations:
    """Take a COCO document apart.

    Args:
        path: path of its file, for messages; without ``roots``, the folder of its images.
        document: the JSON.
        roots: folders in which its images are looked for, the first one first; without any,
            whether they are there is not looked at.

    Returns:
        What it says.

    Raises:
        ShardError: It is no such document.
    """
    try:
        return _parse(path, document, roots)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ShardError(
            f"{path} is no COCO instances file: {type(error).__name__} {error}"
        ) from None


def _parse(path: Path, document: Any, roots: Sequence[Path]) -> Annotations:
    """What ``parse_coco`` returns, or whatever a document of another form raises."""
    entries = {entry["id"]: entry for entry in document["images"]}
    categories = _category_names(document)
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
        name = str(entry["file_name"])
        size = int(entry["width"]), int(entry["height"])
        file = _locate_image(path, name, roots)
        if file is None:
            rejects.append(Rejection(Reject.NO_IMAGE, name))
        else:
            images.append(AnnotatedImage(file, size, objects[number], entry))
    classes = list(dict.fromkeys(categories.values()))
    return Annotations(path, document, classes, images, rejects)


def _category_names(document: Any) -> dict[Any, str]:
    """The names of the categories, by number, in the order of the numbers."""
    categories = sorted(document["categories"], key=lambda category: category["id"])
    return {category["id"]: str(category["name"]) for category in categories}


def _parse_object(annotation: dict[str, Any], category: str, difficult: bool) -> AnnotatedObject:
    """One of COCO's ``annotations``."""
    mask = annotation.get("segmentation") or []
    is_rle = isinstance(mask, dict) and {"counts", "size"} <= mask.keys()
    if not is_rle:
        mask = [polygon for polygon in mask if _is_polygon(polygon)]
    box = finite_numbers(annotation["bbox"])
    return AnnotatedObject(
        category,
        box=box if len(box) == 4 else (),
        difficult=difficult,
        crowd=bool(annotation.get("iscrowd")),
        mask=mask,
    )


def _is_polygon(value: Any) -> bool:
    """Whether it is a list of the coordinates of 3 points and more."""
    return isinstance(value, list) and len(finite_numbers(value)) >= 6


def _locate_image(path: Path, name: str, roots: Sequence[Path]) -> Path | None:
    """Where the file of an image is, or None if it is in none of the folders."""
    if not roots:
        return path / name
    for root in roots:
        if (root / name).is_file():
            return root / name
    return None
