"""Files that say the class of every pixel: by palettes, by gray values, or by colours."""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shards.errors import ShardError

# of a pixel that is neither learned nor scored: VOC's border between object and background
IGNORED = 255
# formats that keep every value: a JPEG's are others than were written
_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "PPM")
_UNKNOWN = -1
_VOC_BORDER = 0xE0E0C0  # the colour of 255 in VOC's palette
_COLOUR_AXES = 3

Labels = NDArray[np.uint8]


class Coding(NamedTuple):
    """What the values in files of labels mean.

    Attributes:
        numbers: the class of each value that there may be, ``IGNORED`` of what does not count.
        colours: the same of each colour, red · 65536 + green · 256 + blue; of files that are
            palettes or gray none are needed.
    """

    numbers: Mapping[int, int]
    colours: Mapping[int, int]


def plain_coding(classes: int) -> Coding:
    """Values that are the numbers of classes, or colours of VOC's palette that stand for them.

    Args:
        classes: how many there are.
    """
    numbers = {number: number for number in range(classes)}
    colours = {palette_colour(number): number for number in range(classes)}
    return Coding(numbers | {IGNORED: IGNORED}, {_VOC_BORDER: IGNORED} | colours)


def palette_colour(number: int) -> int:
    """The colour of a class in VOC's palette, red · 65536 + green · 256 + blue.

    The bits of the number are dealt out to the three channels in turn, the highest places first.

    Args:
        number: of the class, 0…255.
    """
    colour = 0
    for place in range(8):
        for channel in range(3):
            bit = number >> (3 * place + channel) & 1
            colour |= bit << (7 - place) << (16 - 8 * channel)
    return colour


def palette(classes: int) -> NDArray[np.uint8]:
    """The colours of VOC's palette [classes, 3], RGB."""
    colours = [palette_colour(number) for number in range(classes)]
    return np.array([(colour >> 16, colour >> 8 & 255, colour & 255) for colour in colours], "u1")


def read_labels(data: bytes, coding: Coding, name: str) -> Labels:
    """The class of every pixel of a file.

    Args:
        data: the file.
        coding: what its values mean.
        name: of the file, for messages.

    Returns:
        [height, width], numbers of classes, or ``IGNORED``.

    Raises:
        ShardError: It is no file of labels, or has a value or a colour that means no class.
    """
    values, meanings = _pixels(data, coding, name)
    present, places = np.unique(values, return_inverse=True)
    numbers = np.array([meanings.get(value, _UNKNOWN) for value in present.tolist()], np.int64)
    unknown = present[numbers == _UNKNOWN].tolist()
    if unknown:
        classes = {*coding.numbers.values()} - {IGNORED}
        what = "the colour #{:06x}" if meanings is coding.colours else "the value {}"
        raise ShardError(
            f"{name} has {what.format(unknown[0])}, which means none of the {len(classes)} classes;"
            " correct the file, or the list of classes beside it"
        )
    labels: Labels = numbers.astype(np.uint8)[places].reshape(values.shape)
    return labels


def values_in(data: bytes, name: str) -> set[int]:
    """The values in a file, or of one in colours the numbers that these have in VOC's palette.

    Args:
        data: the file.
        name: of the file, for messages.

    Raises:
        ShardError: It is no file of labels, or has colours of another palette.
    """
    coding = plain_coding(IGNORED)
    values, meanings = _pixels(data, coding, name)
    present = np.unique(values).tolist()
    unknown = [value for value in present if value not in meanings]
    if unknown:
        raise ShardError(
            f"{name} has the colour #{unknown[0]:06x}, which is none of Pascal VOC's palette; put "
            "a labelmap.txt beside the folder, with a line NAME:RED,GREEN,BLUE for each class"
        )
    return {meanings[value] for value in present}


def _pixels(data: bytes, coding: Coding, name: str) -> tuple[NDArray[np.int64], Mapping[int, int]]:
    """The values of a file [height, width], and what they mean: those of colours are these."""
    pixels = _opened(data, name)
    if pixels.ndim < _COLOUR_AXES:
        return pixels, coding.numbers
    is_gray = bool((pixels == pixels[..., :1]).all())
    colours = (pixels * (1 << 16, 1 << 8, 1)).sum(-1)
    if is_gray and not {*np.unique(colours).tolist()} <= coding.colours.keys():
        return pixels[..., 0], coding.numbers
    return colours, coding.colours


def _opened(data: bytes, name: str) -> NDArray[np.int64]:
    """The values of a file [height, width], or of one in colours [height, width, 3].

    Raises:
        ShardError: It is no file of labels.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        is_jpeg = data.startswith(b"\xff\xd8")
        reason = "a JPEG, whose values are not those that were written" if is_jpeg else error
        raise ShardError(
            f"wanted a class for each pixel in {name}, as a PNG or another lossless file, got "
            f"{reason}; write the labels anew as PNG"
        ) from None
    pixels = np.asarray(image).astype(np.int64)
    if image.mode in ("LA", "PA"):
        pixels = pixels[..., 0]
    if pixels.ndim == _COLOUR_AXES:
        return pixels[..., :3]
    if pixels.min() < 0 or pixels.max() > IGNORED:
        raise ShardError(
            f"wanted classes from 0 to 254 and 255 for what does not count in {name}, got values "
            f"from {pixels.min()} to {pixels.max()}: are these the numbers of objects?"
        )
    return pixels


def names_from(lines: Sequence[str]) -> tuple[list[str], dict[int, str]]:
    """Names of classes as files beside masks list them.

    Args:
        lines: of such a file: ``NAME``, or ``NUMBER NAME`` in all, or as CVAT's labelmap.txt has
            them, ``NAME:RED,GREEN,BLUE:…``.

    Returns:
        Names by number, "" of numbers between them without one; and by colour, of files without
        numbers.
    """
    texts = [line.strip() for line in lines]
    texts = [text for text in texts if text and not text.startswith("#")]
    by_colour = {}
    for text in texts:
        name, _, rest = text.partition(":")
        colour = _colour(rest.partition(":")[0])
        if colour is not None:
            by_colour[colour] = name
    if texts and len(by_colour) == len(texts):
        return [*by_colour.values()], by_colour
    numbered = [_numbered(text) for text in texts]
    if all(number is not None for number, _ in numbered):
        by_number = {number: name for number, name in numbered if number is not None}
        return [by_number.get(number, "") for number in range(max(by_number, default=-1) + 1)], {}
    # labelme's first line stands for the value 255
    return [text for text in texts if text != "__ignore__"], {}


def _numbered(text: str) -> tuple[int | None, str]:
    """The number before a name, None where there is none."""
    for separator in (":", ",", "\t", " "):
        number, _, name = text.partition(separator)
        if separator in text and number.strip().isdecimal() and int(number) < IGNORED:
            return int(number), name.strip()
    return None, text


def _colour(text: str) -> int | None:
    """A colour of ``RED,GREEN,BLUE``, None where it is none."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != _COLOUR_AXES or not all(part.isdecimal() for part in parts):
        return None
    red, green, blue = map(int, parts)
    return red << 16 | green << 8 | blue if max(red, green, blue) <= IGNORED else None
