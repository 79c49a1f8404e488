"""What tools write as COCO, brought to COCO's own form.

A document that has that form stays as it is, so that the sets of it keep their bytes. What is
unusual but clear is made usual: ids that are equal as text, a polygon without its list, a box that
only the mask says. What is not clear is left out under a reason, each entry alone.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from shards.errors import ShardError
from shards.rejects import Reject, Rejection
from shards.sources.annotations import finite_numbers
from shards.sources.masks import box_around, usable_mask


class CocoForm(NamedTuple):
    """A document in COCO's form.

    Attributes:
        document: has lists of ``images``, ``categories`` and ``annotations``; images have an id of
            their own and a name, annotations an ``image_id``, a ``category_id`` and a ``bbox``,
            which may be None.
        rejects: entries that have no place in it.
    """

    document: dict[str, Any]
    rejects: list[Rejection]


def in_coco_form(path: Path, document: Any) -> CocoForm:
    """Bring a document to COCO's form.

    Args:
        path: path of its file, for messages.
        document: the JSON.

    Returns:
        The document, and what was left out of it.

    Raises:
        ShardError: It is no such document, or one of its ids is that of two categories.
    """
    images, categories, annotations = _lists(path, document)
    rejects = list[Rejection]()
    images = _named_images(images, rejects)
    if document["images"] and not images:
        raise _no_images(path, rejects)
    categories = _named_categories(path, categories)
    image_ids = _by_text(images)
    category_ids = _by_text(categories)
    objects = list[dict[str, Any]]()
    known_images = {entry["id"] for entry in images}
    known_categories = {category["id"] for category in categories}
    for annotation in annotations:
        if _is_usual(annotation, known_images, known_categories):  # millions are
            objects.append(annotation)
            continue
        if not isinstance(annotation, dict) or _text(annotation.get("image_id")) is None:
            rejects.append(Rejection(Reject.UNKNOWN_IMAGE, f"of no image: {_excerpt(annotation)}"))
            continue
        objects.append(_usual_object(annotation, image_ids, category_ids))
    _refuse_shared_names(path, categories, objects)
    lists = {"images": images, "categories": categories, "annotations": objects}
    return CocoForm(document | lists, rejects)


def _lists(path: Path, document: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """The images, categories and annotations of a document, of which only images must be there."""
    if not isinstance(document, dict):
        raise _other_document(path, f"a {type(document).__name__}")
    if "images" not in document:
        raise _other_document(path, f"{', '.join(map(str, list(document)[:5])) or 'nothing'}")
    lists = list[list[Any]]()
    for name in ("images", "categories", "annotations"):
        entries = document.get(name) or []
        if not isinstance(entries, list):
            raise _other_document(path, f"{name} that are a {type(entries).__name__}")
        lists.append(entries)
    images, categories, annotations = lists
    return images, categories, annotations


def _other_document(path: Path, got: str) -> ShardError:
    return ShardError(
        f"{path} is no COCO instances file: wanted lists of images, annotations and categories, "
        f"got {got}; check what was exported"
    )


def _no_images(path: Path, rejects: Sequence[Rejection]) -> ShardError:
    """The error of a document whose images cannot be used, all of them."""
    shared = [name for reason, name in rejects if reason == Reject.SHARED_ID]
    if not shared:
        return _other_document(path, f"{len(rejects):,} images without id or file_name")
    return ShardError(
        f"{path}: all images share their ids with others, such as {', '.join(shared[:3])}, so that "
        "nobody knows whose the boxes are; give each image an id of its own"
    )


def _named_images(images: Sequence[Any], rejects: list[Rejection]) -> list[dict[str, Any]]:
    """The images that have a name and an id that no other one has."""
    entries = list[dict[str, Any]]()
    for entry in images:
        if not isinstance(entry, dict) or _text(entry.get("id")) is None or not _name(entry):
            rejects.append(Rejection(Reject.NO_NAME, _excerpt(entry)))
        else:
            entries.append(entry)
    names = dict[str, set[str]]()
    for entry in entries:
        names.setdefault(str(_text(entry["id"])), set()).add(_name(entry))
    kept = dict[str, dict[str, Any]]()
    for entry in entries:
        text = str(_text(entry["id"]))
        if len(names[text]) > 1:
            rejects.append(Rejection(Reject.SHARED_ID, _name(entry)))
        elif text in kept:
            rejects.append(Rejection(Reject.DUPLICATE, _name(entry)))
        elif "file_name" in entry:
            kept[text] = entry
        else:
            kept[text] = entry | {"file_name": _name(entry)}
    return list(kept.values())


def _named_categories(path: Path, categories: Sequence[Any]) -> list[dict[str, Any]]:
    """The categories that have an id and a name; objects of the others are of none."""
    kept = [
        category
        for category in categories
        if isinstance(category, dict) and _text(category.get("id")) is not None
    ]
    kept = [category for category in kept if "name" in category]
    names = dict[str, str]()
    for category in kept:
        text, name = str(_text(category["id"])), str(category["name"])
        if names.setdefault(text, name) != name:
            raise ShardError(
                f"{path}: the id {text} is that of the categories {names[text]} and {name}, so "
                "that nobody knows which its objects are; give each category its own"
            )
    return kept


def _refuse_shared_names(
    path: Path, categories: Sequence[dict[str, Any]], objects: Sequence[dict[str, Any]]
) -> None:
    """A ``ShardError`` if two categories that have objects have one name.

    Roboflow writes a first category of the set's name that no object has.
    """
    used = {str(_text(annotation.get("category_id"))) for annotation in objects}
    texts = dict[str, str]()
    for category in categories:
        text, name = str(_text(category["id"])), str(category["name"])
        if text in used and texts.setdefault(name, text) != text:
            raise ShardError(
                f"{path}: the categories {texts[name]} and {text} are both called {name}; rename "
                "one of them, or give their objects one category_id"
            )


def _usual_object(
    annotation: dict[str, Any], image_ids: dict[str, Any], category_ids: dict[str, Any]
) -> dict[str, Any]:
    """One of COCO's ``annotations`` in its form; itself where it has it."""
    image, category = annotation["image_id"], annotation.get("category_id")
    changes = dict[str, Any]()
    known_image = image_ids.get(str(_text(image)), image)
    if known_image != image:
        changes["image_id"] = known_image
    known_category = None
    if _text(category) is not None:
        known_category = category_ids.get(str(_text(category)), category)
    if known_category != category or "category_id" not in annotation:
        changes["category_id"] = known_category
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list) and segmentation and not isinstance(segmentation[0], list):
        segmentation, _ = usable_mask(segmentation)
        if segmentation:
            changes["segmentation"] = segmentation
    if not _has_area(annotation.get("bbox")):
        mask, _ = usable_mask(segmentation)
        box = box_around(mask) if mask else ()
        if box or "bbox" not in annotation:
            changes["bbox"] = list(box) or None
    return annotation | changes if changes else annotation


def _is_usual(annotation: Any, image_ids: set[Any], category_ids: set[Any]) -> bool:
    """Whether one of COCO's ``annotations`` surely has its form."""
    try:
        mask = annotation.get("segmentation")
        _, _, width, height = annotation["bbox"]
        return bool(
            annotation["image_id"] in image_ids
            and annotation["category_id"] in category_ids
            and width > 0
            and height > 0
            and (not mask or isinstance(mask, dict) or isinstance(mask[0], list))
        )
    except (AttributeError, LookupError, TypeError, ValueError):
        return False


def _has_area(box: Any) -> bool:
    """Whether a box has four numbers, and none of its sides is nothing."""
    if not isinstance(box, list | tuple):
        return False
    numbers = finite_numbers(box)
    return len(numbers) == 4 and min(numbers[2:]) > 0


def _by_text(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The ids of entries by their text."""
    return {str(_text(entry["id"])): entry["id"] for entry in entries}


def _text(number: Any) -> str | None:
    """An id as text, 7 of 7.0, or None if it is none."""
    if isinstance(number, float) and number.is_integer():
        return str(int(number))
    return str(number) if isinstance(number, int | float | str) else None


def _name(entry: dict[str, Any]) -> str:
    """The file name of an image, '' if it has none; LVIS has only a URL of COCO's."""
    for key in ("file_name", "coco_url"):
        name = entry.get(key)
        if isinstance(name, str | int) and str(name):
            return str(name)
    return ""


def _excerpt(entry: Any) -> str:
    """The beginning of an entry, for lists of what was left out."""
    text = json.dumps(entry)
    return text if len(text) <= 80 else f"{text[:79]}…"
