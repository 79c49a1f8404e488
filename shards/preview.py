"""A contact sheet: what a network will see of some images, with their classes and boxes."""

import io
import math
from collections.abc import Sequence
from PIL import Image, ImageDraw, ImageFont
from shards.boxes import Picture
from shards.preview_legend import LINE as LEGEND_LINE
from shards.preview_legend import Colour, Font, LegendEntry, draw_legend, lay_out
from shards.survey import Look

# pixels
_TILE = 160
_GAP = 10
_LINE = 15
_CAPTION = 2 * _LINE + 4
_COLUMNS = 8
_FONT_SIZE = 12
_NAMED = 24  # a narrower box has no room for a name
_INK = (40, 40, 40)
_PALE_INK = (125, 125, 125)
_REJECTED = (250, 225, 225)
_PAPER = (255, 255, 255)
# told apart on dark and light pictures; those of other classes repeat them
_COLOURS = (
    (255, 80, 60),
    (60, 150, 255),
    (60, 200, 90),
    (255, 190, 30),
    (200, 90, 240),
    (0, 210, 210),
    (255, 120, 190),
    (170, 210, 40),
)
_IGNORED = (170, 170, 170)


def contact_sheet(looks: Sequence[Look], classes: Sequence[str], title: str) -> bytes:
    """Draw the images that were looked at side by side.

    Each is upright and scaled to its tile, small ones by a whole number so that their pixels are
    seen. Boxes have the colour of their class, those that no evaluation counts are grey; a legend
    has the classes of boxes too narrow for their names. A rejected image is a red tile with the
    reason.

    Args:
        looks: the images, at least one.
        classes: the names of the boxes' classes.
        title: what stands above.

    Returns:
        The bytes of a PNG.
    """
    columns = min(_COLUMNS, math.ceil(math.sqrt(len(looks))))
    rows = math.ceil(len(looks) / columns)
    width = columns * (_TILE + _GAP) + _GAP
    height = rows * (_TILE + _CAPTION + _GAP) + 2 * _GAP + _LINE
    font = ImageFont.load_default(_FONT_SIZE)
    legend = lay_out(_entries(looks, classes, width - 4 * _GAP, font), width - 2 * _GAP, font)
    space = _GAP if legend else 0
    total_height = height + len(legend) * LEGEND_LINE + space
    sheet = Image.new("RGB", (width, total_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw_legend(draw, (_GAP, height), legend, font)
    draw.text((_GAP, _GAP), fit_text(title, width - 2 * _GAP, font), _INK, font)
    for number, look in enumerate(looks):
        row, column = divmod(number, columns)
        x = _GAP + column * (_TILE + _GAP)
        y = 2 * _GAP + _LINE + row * (_TILE + _CAPTION + _GAP)
        _draw_look(sheet, (x, y), look, classes, font)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _entries(
    looks: Sequence[Look], classes: Sequence[str], width: int, font: Font
) -> list[LegendEntry]:
    """What the legend has: the classes of boxes that have no room for their whole name.

    Args:
        looks: the images.
        classes: names of the boxes' classes.
        width: room for a name, pixels.
        font: of the names.
    """
    labels = set[int]()
    is_ignored = False
    for look in looks:
        if look.image is None or look.picture is None:
            continue
        scale = _scale_of(look.image)
        for number, label in enumerate(look.picture.labels.tolist()):
            x_min, _, x_max, _ = look.picture.boxes[number] * scale
            room = round(float(x_max)) - round(float(x_min))
            if look.picture.ignored[number]:
                is_ignored = True
            elif not _has_room(classes[label], room, font):
                labels.add(label)
    entries = [
        LegendEntry(fit_text(classes[label], width, font), _colour_of(label))
        for label in sorted(labels)
    ]
    if is_ignored:
        entries.append(LegendEntry("not counted by evaluations", _IGNORED))
    return entries


def _has_room(name: str, room: int, font: Font) -> bool:
    """Whether a box is wide enough for the whole name of its class."""
    return room >= _NAMED and font.getlength(name) <= room


def _colour_of(label: int) -> Colour:
    """The colour of a class's boxes: one of the colours, or of further classes a pale one."""
    round_number, place = divmod(label, len(_COLOURS))
    red, green, blue = _COLOURS[place]
    if round_number % 2:
        return ((red + 255) // 2, (green + 255) // 2, (blue + 255) // 2)
    return red, green, blue


def _scale_of(image: Image.Image) -> float:
    """Pixels of a tile for one of an image."""
    scale = _TILE / max(image.size)
    return math.floor(scale) if scale >= 1 else scale


def _draw_look(
    sheet: Image.Image,
    corner: tuple[int, int],
    look: Look,
    classes: Sequence[str],
    font: Font,
) -> None:
    """Draw an image and its caption.

    Args:
        sheet: is drawn on.
        corner: x and y of the tile in pixels.
        look: the image.
        classes: names of the boxes' classes.
        font: of the caption.
    """
    x, y = corner
    draw = ImageDraw.Draw(sheet)
    size = ""
    if look.image is None:
        draw.rectangle((x, y, x + _TILE - 1, y + _TILE - 1), _REJECTED)
        lines = ["rejected:", *_wrapped(look.reason, _TILE - 12, font)]
        for number, line in enumerate(lines[: _TILE // _LINE]):
            draw.text((x + 6, y + 4 + number * _LINE), line, _INK, font)
    else:
        tile = _tile_of(look, classes, font)
        offset = (x + (_TILE - tile.width) // 2, y + (_TILE - tile.height) // 2)
        sheet.paste(tile, offset)
        # the font has no ×
        size = f"  {look.image.width} x {look.image.height}"
    class_name = look.class_name or "no class"
    if look.picture is not None:
        count = len(look.picture.boxes)
        class_name = "1 box" if count == 1 else f"{count} boxes"
    draw.text((x, y + _TILE + 2), fit_text(class_name, _TILE, font), _INK, font)
    room = _TILE - draw.textlength(size, font)
    name = fit_text(look.sample.name, room, font, keep_end=True)
    draw.text((x, y + _TILE + 2 + _LINE), name + size, _PALE_INK, font)


def _tile_of(look: Look, classes: Sequence[str], font: Font) -> Image.Image:
    """An image at the size of a tile, with its boxes."""
    image = look.image
    assert image is not None
    scale = _scale_of(image)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    tile = image.resize(size, method)
    if look.picture is not None:
        _draw_boxes(tile, look.picture, scale, classes, font)
    return tile


def _draw_boxes(
    tile: Image.Image,
    picture: Picture,
    scale: float,
    classes: Sequence[str],
    font: Font,
) -> None:
    """Draw the boxes of an image, the largest first, with their classes.

    Args:
        tile: the image, is drawn on.
        picture: its boxes.
        scale: pixels of the tile for one of the image.
        classes: the names by label.
        font: of the names.
    """
    draw = ImageDraw.Draw(tile)
    boxes = picture.boxes * scale
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for number in (-areas).argsort(kind="stable"):
        x_min, y_min, x_max, y_max = (round(float(side)) for side in boxes[number])
        label = int(picture.labels[number])
        colour = _IGNORED if picture.ignored[number] else _colour_of(label)
        corners = (x_min, y_min, max(x_max - 1, x_min), max(y_max - 1, y_min))
        draw.rectangle(corners, outline=colour, width=2)
        if x_max - x_min < _NAMED:
            continue
        name = fit_text(classes[label], x_max - x_min, font)
        place = (x_min, max(y_min - _LINE, 0))
        draw.rectangle(draw.textbbox(place, name, font), colour)
        draw.text(place, name, _INK, font)


def _wrapped(text: str, width: float, font: Font) -> list[str]:
    """The lines of a text that are no wider than there is room, but for longer words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [fit_text(line, width, font) for line in lines if line]


def fit_text(
    text: str,
    width: float,
    font: Font,
    *,
    keep_end: bool = False,
) -> str:
    """A text, cut where it is wider than there is room.

    Args:
        text: of one line.
        width: room in pixels.
        font: its font.
        keep_end: whether its beginning is cut, as of a path.
    """
    line = " ".join(text.encode(errors="replace").decode().split())
    if font.getlength(line) <= width:
        return line
    for length in range(len(line) - 1, 0, -1):
        shorter = f"…{line[-length:]}" if keep_end else f"{line[:length]}…"
        if font.getlength(shorter) <= width:
            return shorter
    return ""
