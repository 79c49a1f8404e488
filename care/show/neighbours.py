"""Nearest neighbours of images as a picture: what an encoder takes for alike."""

import io
from collections.abc import Sequence
from typing import NamedTuple
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from care.evaluate.images import centre_crop
from care.evaluate.neighbours import Neighbours, nearest
from shards.preview import fit_text
from shards.reader import ShardSet

# px
_TILE = 128
_GAP = 8
_LINE = 15
_FRAME = 3
_MARGIN = 10
_FONT_SIZE = 12
_INK = (40, 40, 40)
_PALE_INK = (105, 105, 105)
_SAME = (20, 120, 60)
_OTHER = (190, 60, 20)
_PAPER = (255, 255, 255)
_TOP = 26  # px above the pictures, for what they are


class Query(NamedTuple):
    """An image whose neighbours are looked for.

    Attributes:
        image: RGB.
        name: that is shown below it.
        class_name: its class, or "".
    """

    image: Image.Image
    name: str
    class_name: str = ""


def nearest_of_rows(
    x: Float[Tensor, "n d"], rows: Sequence[int], k: int, *, device: torch.device | str = "cpu"
) -> Neighbours:
    """The nearest neighbours, by cosine, of some images among the others of their set.

    Args:
        x: features of all images, on the CPU.
        rows: numbers of the images, none of which is its own neighbour.
        k: neighbours of each, at most those that there are.
        device: where the cosines are computed.

    Returns:
        Cosines and numbers, the nearest first.
    """
    count = min(k, len(x) - 1)
    every = nearest(x[[*rows]], x, count + 1, device=device)
    # an image may not be the nearest to itself: others may be equal to it
    is_itself = every.rows == torch.tensor([*rows])[:, None]
    is_itself[:, -1] |= ~is_itself.any(dim=1)
    cosines = every.cosines[~is_itself].view(len(rows), count)
    return Neighbours(cosines, every.rows[~is_itself].view(len(rows), count))


def spread_rows(count: int, wanted: int) -> list[int]:
    """Numbers of images that are spread evenly over a set.

    Args:
        count: images in the set.
        wanted: how many, at most all.
    """
    wanted = min(count, wanted)
    return [(2 * number + 1) * count // (2 * wanted) for number in range(wanted)]


def query_of(data: ShardSet, row: int) -> Query:
    """An image of a set as a query.

    Args:
        data: the set.
        row: its number.
    """
    return Query(data.image(row), str(data.keys[row]), _class_name(data, row))


def neighbour_sheet(
    data: ShardSet, queries: Sequence[Query], neighbours: Neighbours, *, title: str = ""
) -> bytes:
    """Draw a row for each query: the image, and behind it those that are nearest to it.

    Below each neighbour are its cosine, its class and its name. A neighbour of the query's class
    has a green frame, one of another class an orange one and "not" before its class.

    Args:
        data: set of the neighbours.
        queries: the images that they are of.
        neighbours: of each.
        title: what stands above; by default what the pictures are.

    Returns:
        A PNG.
    """
    count = neighbours.rows.shape[1]
    width = 2 * _MARGIN + (count + 1) * (_TILE + _GAP) + _GAP
    pitch = _TILE + 2 * _LINE + 2 * _GAP
    sheet = Image.new("RGB", (width, _TOP + len(queries) * pitch + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    heading = title or "each image, and its nearest neighbours by cosine"
    draw.text((_MARGIN, 6), fit_text(heading, width - 2 * _MARGIN, font), _INK, font)
    for number, query in enumerate(queries):
        y = _TOP + number * pitch
        lines = [query.class_name or "no class", query.name]
        _draw_tile(sheet, (_MARGIN, y), query.image, lines, None)
        for place, row in enumerate(neighbours.rows[number].tolist(), 1):
            cosine = float(neighbours.cosines[number, place - 1])
            # one more gap behind the query
            x = _MARGIN + _GAP + place * (_TILE + _GAP)
            _draw_neighbour(sheet, (x, y), data, row, cosine, query.class_name)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _draw_neighbour(
    sheet: Image.Image,
    corner: tuple[int, int],
    data: ShardSet,
    row: int,
    cosine: float,
    class_of_query: str,
) -> None:
    """Draw an image of the set, with a frame that says whether its class is the query's."""
    class_name = _class_name(data, row)
    colour = None
    text = class_name or "no class"
    if class_name and class_of_query:
        is_same = class_name == class_of_query
        colour = _SAME if is_same else _OTHER
        # not by colour alone
        text = class_name if is_same else f"not: {class_name}"
    lines = [f"{cosine:.2f}  {text}", str(data.keys[row])]
    _draw_tile(sheet, corner, data.image(row), lines, colour)


def _draw_tile(
    sheet: Image.Image,
    corner: tuple[int, int],
    image: Image.Image,
    lines: Sequence[str],
    colour: tuple[int, int, int] | None,
) -> None:
    """Draw the centre crop of an image, its frame and its lines.

    Args:
        sheet: is drawn on.
        corner: x and y in pixels.
        image: RGB.
        lines: two, of which the second is a path.
        colour: of the frame, or none.
    """
    x, y = corner
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    sheet.paste(centre_crop(image, _TILE), corner)
    if colour is not None:
        draw.rectangle((x, y, x + _TILE - 1, y + _TILE - 1), outline=colour, width=_FRAME)
    label, name = lines
    below = y + _TILE + 2
    draw.text((x, below), fit_text(label, _TILE, font), colour or _INK, font)
    name = fit_text(name, _TILE, font, keep_end=True)
    draw.text((x, below + _LINE), name, _PALE_INK, font)


def _class_name(data: ShardSet, row: int) -> str:
    label = int(data.labels[row])
    return data.classes[label] if label >= 0 else ""


def rows_of_keys(data: ShardSet, keys: Sequence[str]) -> Int[Tensor, " n"]:
    """The numbers of images in a set by their names.

    Args:
        data: the set.
        keys: names of images of it, as its ``keys`` has them.

    Raises:
        KeyError: The set has no image of a name.
    """
    numbers = {key: number for number, key in enumerate(data.keys.tolist())}
    return torch.tensor([numbers[key] for key in keys], dtype=torch.int64)
