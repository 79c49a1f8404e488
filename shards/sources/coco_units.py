"""Boxes in COCO's form that are not in pixels but in parts of their image's sides."""

from collections.abc import Sequence
from typing import Any
from shards.sources.annotations import finite_numbers
from shards.sources.masks import usable_mask

# what a box may reach over its image where its sides are parts of 1, of rounding
_ONE = 1.001


def in_pixels(document: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Make boxes and polygons pixels where all are parts of their image's sides, as Azure ML's.

    Args:
        document: in COCO's form; its images have sizes.

    Returns:
        The document, and whether it was changed: not if a box reaches over 1.
    """
    sizes = {
        entry["id"]: finite_numbers((entry.get("width"), entry.get("height")))
        for entry in document["images"]
    }
    boxes = [finite_numbers(annotation["bbox"] or ()) for annotation in document["annotations"]]
    usable = [box for box in boxes if len(box) == 4 and min(box[2:]) > 0]
    if not usable or any(max(box[0] + box[2], box[1] + box[3]) > _ONE for box in usable):
        return document, False
    objects = list[dict[str, Any]]()
    for annotation, box in zip(document["annotations"], boxes, strict=True):
        size = sizes.get(annotation["image_id"])
        if not size or len(box) != 4:
            objects.append(annotation)
            continue
        changes: dict[str, Any] = {"bbox": _scaled(box, size)}
        mask, _ = usable_mask(annotation.get("segmentation"))
        if isinstance(mask, list):
            changes["segmentation"] = [_scaled(polygon, size) for polygon in mask]
        objects.append(annotation | changes)
    return document | {"annotations": objects}, True


def _scaled(numbers: Sequence[float], size: tuple[float, ...]) -> list[float]:
    """Numbers that are in turn along the width and the height, in pixels."""
    return [number * size[position % 2] for position, number in enumerate(numbers)]
