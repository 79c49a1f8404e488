"""Masks as COCO writes them, and the boxes around them.

Files from elsewhere are read here: whatever a mask holds, the answer is a value and never an
exception, so no other code decodes them.
"""

from collections.abc import Iterable
from typing import Any
from shards.sources.annotations import finite_numbers

# COCO's text of run lengths: five bits a character, a sign, and whether more follow
_FIRST_CHARACTER = 48
_VALUE_BITS = 0x1F
_SIGN = 0x10
_MORE = 0x20


def usable_mask(segmentation: Any) -> tuple[Any, bool]:
    """What of an object's ``segmentation`` can be used.

    Args:
        segmentation: polygons, one polygon without the list around it, or an RLE.

    Returns:
        Polygons of 3 points and more or an RLE, [] if there is none; and whether a part was lost.
    """
    if not segmentation:
        return [], False
    if isinstance(segmentation, dict):
        is_rle = {"counts", "size"} <= segmentation.keys()
        return (segmentation, False) if is_rle else ([], True)
    if not isinstance(segmentation, list):
        return [], True
    is_flat = all(isinstance(value, int | float) for value in segmentation)
    written = [segmentation] if is_flat else segmentation
    polygons = [polygon for polygon in written if _is_polygon(polygon)]
    return polygons, len(polygons) < len(written)


def box_around(mask: Any) -> tuple[float, ...]:
    """The box of a usable mask.

    Args:
        mask: what ``usable_mask`` returned.

    Returns:
        x and y of the upper left corner, width and height, in pixels; () if the mask has no area.
    """
    if isinstance(mask, dict):
        return _box_of_runs(mask)
    numbers = [finite_numbers(polygon) for polygon in mask]
    columns = [x for polygon in numbers for x in polygon[0::2]]
    rows = [y for polygon in numbers for y in polygon[1::2]]
    if not columns or min(columns) == max(columns) or min(rows) == max(rows):
        return ()
    return min(columns), min(rows), max(columns) - min(columns), max(rows) - min(rows)


def _is_polygon(value: Any) -> bool:
    """Whether it is a list of the coordinates of 3 points and more."""
    return isinstance(value, list) and len(finite_numbers(value)) >= 6


def _box_of_runs(mask: dict[str, Any]) -> tuple[float, ...]:
    """The box of an RLE, which runs down one column after the other."""
    size = finite_numbers(mask["size"]) if isinstance(mask["size"], list) else ()
    counts = mask["counts"]
    runs = _unpack_runs(counts) if isinstance(counts, str) else _whole_numbers(counts)
    if len(size) != 2 or size[0] < 1:
        return ()
    height = int(size[0])
    columns = list[int]()
    rows = list[int]()
    start = 0
    for number, length in enumerate(runs):
        end = start + length
        if number % 2 and length > 0:  # every second run is inside of the mask
            columns += [start // height, (end - 1) // height]
            is_one_column = columns[-1] == columns[-2]
            rows += [start % height, (end - 1) % height] if is_one_column else [0, height - 1]
        start = end
    if not columns or start > size[0] * size[1]:  # longer than the image
        return ()
    x, y = min(columns), min(rows)
    return x, y, max(columns) - x + 1, max(rows) - y + 1


def _whole_numbers(counts: Any) -> list[int]:
    """Run lengths that are written as a list, [] if one of them is no length."""
    if not isinstance(counts, list):
        return []
    runs = [int(number) for number in finite_numbers(counts)]
    return runs if all(run >= 0 for run in runs) else []


def _unpack_runs(text: str) -> list[int]:
    """Run lengths that are written as COCO's text, [] if it is none.

    From the fourth on each is written as its difference to the one two before.
    """
    runs = list[int]()
    value = shift = 0
    for character in _codes(text):
        value |= (character & _VALUE_BITS) << shift
        shift += 5
        if character & _MORE:
            continue
        if character & _SIGN:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            return []
        runs.append(value)
        value = shift = 0
    return runs


def _codes(text: str) -> Iterable[int]:
    """The six bits of each character; those that no such text has end it."""
    for character in text:
        code = ord(character) - _FIRST_CHARACTER
        if not 0 <= code < 64:
            return
        yield code
