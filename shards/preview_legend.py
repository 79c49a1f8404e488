"""The legend of a contact sheet: what boxes show that have no room for the name of their class."""

from collections.abc import Sequence
from typing import NamedTuple
from PIL import ImageDraw, ImageFont

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
Colour = tuple[int, int, int]

# pixels
LINE = 17
_SQUARE = 11
_BEHIND_SQUARE = 5
_BEHIND_ENTRY = 14
_INK = (40, 40, 40)


class LegendEntry(NamedTuple):
    """What one colour of boxes means.

    Attributes:
        name: of a class, or why no evaluation counts them.
        colour: of the boxes.
    """

    name: str
    colour: Colour


def lay_out(entries: Sequence[LegendEntry], width: int, font: Font) -> list[list[LegendEntry]]:
    """The entries line by line.

    Args:
        entries: in their order; the name of each fits a line.
        width: of a line, pixels.
        font: of the names.
    """
    lines = list[list[LegendEntry]]()
    room = 0.0
    for entry in entries:
        needed = _width_of(entry, font)
        if needed > room:
            lines.append([])
            room = width
        lines[-1].append(entry)
        room -= needed + _BEHIND_ENTRY
    return lines


def draw_legend(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    lines: Sequence[Sequence[LegendEntry]],
    font: Font,
) -> None:
    """Draw a legend: a square of each colour, and what it means behind it.

    Args:
        draw: draws on the sheet.
        corner: x and y of the first line, pixels.
        lines: as ``lay_out`` gives them.
        font: of the names.
    """
    x_first, y = corner
    for line in lines:
        x: float = x_first
        for entry in line:
            draw.rectangle((x, y + 2, x + _SQUARE - 1, y + 1 + _SQUARE), entry.colour)
            draw.text((x + _SQUARE + _BEHIND_SQUARE, y), entry.name, _INK, font)
            x += _width_of(entry, font) + _BEHIND_ENTRY
        y += LINE


def _width_of(entry: LegendEntry, font: Font) -> float:
    """The pixels that an entry takes."""
    return _SQUARE + _BEHIND_SQUARE + font.getlength(entry.name)
