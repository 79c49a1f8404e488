"""A sheet of pictures in rows with their names beside them, and the colour scale of maps below."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# a map's value in full colour, where 1 is the average pixel; one for all encoders, as in Fig. 4
SCALE = 2.5
# from 0 to ``SCALE``, evenly spaced: blue, light blue, green, yellow, red
COLOURS = np.asarray(
    [(20, 20, 80), (30, 110, 200), (60, 190, 120), (250, 210, 50), (220, 30, 30)], dtype=np.float32
)
# px: left of the pictures for the rows' names, at least and at most, and between pictures
SHEET_MARGIN, WIDEST_MARGIN, SHEET_GAP = 84, 260, 4
# px: height of what is below the pictures, and width of the colours there
LEGEND_HEIGHT, LEGEND_WIDTH = 24, 140
_FONT_SIZE = 14
_SMALL_FONT_SIZE = 12
# px: left and right of a name
_PAD = 4
# where a long name may go on in the next line
_BREAKS = " /-_:"


def coloured(values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Colours of values, which below 0 are those of 0 and above 1 those of 1.

    Args:
        values: of any shape.

    Returns:
        RGB from 0 to 255, an axis of three more.
    """
    position = values.clip(0, 1) * (len(COLOURS) - 1)
    stops = range(len(COLOURS))
    bands = [np.interp(position, stops, COLOURS[:, band]) for band in range(3)]
    return np.stack(bands, -1, dtype=np.float32)


def draw_sheet(
    rows: Mapping[str, Sequence[Image.Image]],
    *,
    scale: float = SCALE,
    captions: Mapping[str, Sequence[str]] | None = None,
) -> bytes:
    """Draw rows of pictures, and below them which colour of a map is which value.

    Args:
        rows: by the name beside them; as many pictures in each, all of one size.
        scale: value of a map that is red.
        captions: of rows whose pictures have a word each, by the rows' names.

    Returns:
        A PNG.
    """
    width, height = next(iter(rows.values()))[0].size
    count = max(len(pictures) for pictures in rows.values())
    font = ImageFont.load_default(_FONT_SIZE)
    labels = {name: _wrapped(name, WIDEST_MARGIN - 2 * _PAD, font) for name in rows}
    widest = max(font.getlength(line) for text in labels.values() for line in text.split("\n"))
    margin = max(SHEET_MARGIN, int(widest) + 2 * _PAD)
    bottom = len(rows) * (height + SHEET_GAP)
    canvas_width = max(margin + count * (width + SHEET_GAP), margin + 2 * LEGEND_WIDTH)
    canvas = Image.new("RGB", (canvas_width, bottom + LEGEND_HEIGHT), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (name, pictures) in enumerate(rows.items()):
        y = number * (height + SHEET_GAP)
        place = (_PAD, y + height // 2)
        draw.multiline_text(place, labels[name], fill="black", anchor="lm", font_size=_FONT_SIZE)
        words = (captions or {}).get(name, [""] * len(pictures))
        for column, (picture, word) in enumerate(zip(pictures, words, strict=True)):
            x = margin + column * (width + SHEET_GAP)
            canvas.paste(picture, (x, y))
            if word:
                _write_caption(draw, (x, y + height), word, width)
    _draw_legend(canvas, (margin, bottom), scale)
    data = BytesIO()
    canvas.save(data, "PNG")
    return data.getvalue()


def _write_caption(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], word: str, width: int
) -> None:
    """Write a word over the lower edge of a picture.

    Args:
        draw: of the sheet.
        corner: x and y of the picture's lower left corner, pixels.
        word: is cut where it is wider than the picture.
        width: of the picture, pixels.
    """
    x, y = corner
    font = ImageFont.load_default(_SMALL_FONT_SIZE)
    text = word
    while len(text) > 1 and font.getlength(text) > width - 2 * _PAD:
        text = f"{text[:-2]}…"
    line = _SMALL_FONT_SIZE + 4
    draw.rectangle((x, y - line, x + width - 1, y - 1), fill="white")
    draw.text((x + _PAD, y - line // 2), text, fill="black", anchor="lm", font=font)


def _draw_legend(canvas: Image.Image, corner: tuple[int, int], scale: float) -> None:
    """Draw the colours from 0 to the scale, with both values.

    Args:
        canvas: is drawn on.
        corner: x and y of its upper left corner, pixels.
        scale: value that is red.
    """
    x, y = corner
    values = np.linspace(0, 1, LEGEND_WIDTH, dtype=np.float32)
    bar = np.repeat(coloured(values)[None], 10, 0).astype(np.uint8)
    canvas.paste(Image.fromarray(bar), (x + 14, y + 7))
    draw = ImageDraw.Draw(canvas)
    middle = y + LEGEND_HEIGHT // 2
    draw.text((x, middle), "0", fill="black", anchor="lm", font_size=_SMALL_FONT_SIZE)
    text = f"{scale:g} times the average"
    place = (x + 14 + LEGEND_WIDTH + 6, middle)
    draw.text(place, text, fill="black", anchor="lm", font_size=_SMALL_FONT_SIZE)


def _wrapped(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """A name in lines that are narrow enough: a word each, longer words at their marks.

    Args:
        text: the name.
        width: pixels that a line may have.
        font: of the text.
    """
    lines = list[str]()
    for word in text.split(" "):
        line = ""
        for part in _parts(word):
            if line and font.getlength(line + part) > width:
                lines.append(line)
                line = ""
            line += part
        lines.append(line)
    return "\n".join(lines)


def _parts(word: str) -> list[str]:
    """A word cut behind each of its marks."""
    parts = [""]
    for character in word:
        parts[-1] += character
        if character in _BREAKS:
            parts.append("")
    return [part for part in parts if part] or [""]
