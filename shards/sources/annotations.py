"""What an annotated list says of its images, of COCO and of VOC alike."""

import math
from pathlib import Path
from typing import Any, NamedTuple

AnnotatedObject = tuple[
    str, tuple[float, ...], bool, bool, Any
]  # its class, left, top, width and height or (), difficult, crowd, mask


class Annotations(NamedTuple):
    """What a list says, before classes and borders are looked at; ``content`` is in COCO's format, VOC's with ``voc`` and ``difficult``."""

    path: Path
    content: dict[str, Any]
    classes: list[str]
    images: list[
        tuple[Path, tuple[int, int], list[AnnotatedObject], dict[str, Any]]
    ]  # that are there: file, size, objects, COCO's entry
    rejects: list[tuple[str, str]]


def finite_numbers(values: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, values))
    except (TypeError, ValueError, OverflowError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()
