"""What an annotated list says of its images, of COCO and of Pascal VOC alike.

These values lie below the parsers, ``coco`` and ``voc``, and below what classes and borders are
looked at in, ``shards.boxes``.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from shards.rejects import Rejection


class AnnotatedObject(NamedTuple):
    """One object as the list says it.

    Attributes:
        category: the name of its class; ``#5`` where the list has no name for number 5.
        box: x and y of the upper left corner, width and height, in pixels; () where the list has
            not four numbers.
        difficult: VOC's flag.
        crowd: COCO's flag.
        mask: COCO's segmentation, polygons of 3 points and more or an RLE; [] if there is none.
        mask_is_cut: whether the list's mask has parts that are none.
    """

    category: str
    box: tuple[float, ...]
    difficult: bool
    crowd: bool
    mask: Any
    mask_is_cut: bool = False


class AnnotatedImage(NamedTuple):
    """One image of a list that is there.

    Attributes:
        path: path of its file; in a shard set, of the set and the name in its source.
        size: width and height in pixels.
        objects: what is to be seen on it.
        entry: what COCO's ``images`` has of it.
    """

    path: Path
    size: tuple[int, int]
    objects: list[AnnotatedObject]
    entry: dict[str, Any]


class Annotations(NamedTuple):
    """What a list says, before classes and borders are looked at.

    Attributes:
        path: path of the list.
        document: the list in COCO's format; of VOC with ``voc``, and ``difficult`` of its objects.
        classes: the names of COCO's categories by id, or VOC's names sorted.
        images: those that are there.
        rejects: images that are not, and objects of images that are not listed.
        notes: what a user might not expect, one line each.
    """

    path: Path
    document: dict[str, Any]
    classes: list[str]
    images: list[AnnotatedImage]
    rejects: list[Rejection]
    notes: Sequence[str] = ()

    @property
    def has_boxes(self) -> bool:
        """Whether an object has a box, be it one that counts or not."""
        return any(annotated.box for image in self.images for annotated in image.objects)

    @property
    def is_labels(self) -> bool:
        """Whether it says of images only what they show, as iNaturalist and camera traps do."""
        return not self.has_boxes and any(image.objects for image in self.images)

    @property
    def voc(self) -> bool:
        """Whether it is a list of Pascal VOC."""
        return bool(self.document.get("voc"))


def finite_numbers(values: Iterable[Any]) -> tuple[float, ...]:
    """Numbers that a file should have, or () if one of them is none, or not finite."""
    try:
        numbers = tuple(map(float, values))
    except (TypeError, ValueError, OverflowError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()
