"""The values of an image as its file has them, where Pillow alone would cut or misread them.

Pillow has 8 bits a channel but for gray, and no more than four channels. Of 16 bits in colour it is
made to read the high bytes and the low ones; other TIFFs are read by tifffile, if it is installed.
"""

import io
import sys
from types import ModuleType
from typing import Any, NamedTuple
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shards.pixels import Raster
from shards.rejects import Reject, RejectError

_BITS, _PHOTOMETRIC, _SAMPLES, _PLANES, _FORMAT, _NO_DATA = 258, 262, 277, 284, 339, 42113
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIGNED = 2  # SampleFormat of TIFF
_SEPARATE = 2  # PlanarConfiguration of TIFF: the bands one after the other
# of rawmodes: the byte order by which the other byte of each two is read
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_MAX_BYTES = 1 << 30  # of the values of an image
# markers of a JPEG 2000's codestream and of the sizes in it, which lie behind some boxes
_JPEG2000_SIZE = b"\xff\x4f\xff\x51"
_JPEG2000_HEAD = 1 << 16


class TiffFacts(NamedTuple):
    """What the tags of a TIFF say of its values.

    Attributes:
        bits: of a value.
        bands: how many there are.
        is_signed: whether values can be negative integers.
        is_separate: whether the bands lie one after the other.
        is_inverted: whether small values are white.
        no_data: the value of pixels that have none, or None.
    """

    bits: int
    bands: int
    is_signed: bool = False
    is_separate: bool = False
    is_inverted: bool = False
    no_data: float | None = None


def is_tiff(data: bytes) -> bool:
    """Whether a file is a TIFF, by its first bytes."""
    return data.startswith(_TIFF_STARTS)


def tiff_facts(image: Image.Image) -> TiffFacts:
    """What the tags of an opened image say, if it is a TIFF; else what holds of other formats."""
    if image.format != "TIFF":
        return TiffFacts(8, len(image.getbands()))
    tags = image.tag_v2  # type: ignore[attr-defined]
    return TiffFacts(
        bits=max(tags.get(_BITS, (1,))),
        bands=tags.get(_SAMPLES, 1),
        is_signed=_SIGNED in tags.get(_FORMAT, ()),
        is_separate=tags.get(_PLANES) == _SEPARATE,
        is_inverted=tags.get(_PHOTOMETRIC) == 0,
        no_data=_number(tags.get(_NO_DATA)),
    )


def is_wide(image: Image.Image) -> bool:
    """Whether an opened image has more than 8 bits a channel, or numbers that are no bytes."""
    if image.mode.startswith(("I", "F")):
        return True
    if image.mode not in ("L", "LA", "RGB", "RGBA"):  # of CMYK and LAB Pillow's 8 bits are taken
        return False
    facts = tiff_facts(image)
    has_words = any(";16" in mode for mode in _rawmodes(image))
    is_wide_jpeg2000 = _jpeg2000_bits(image) > 8
    return facts.is_signed or facts.bits > 8 or has_words or is_wide_jpeg2000 or _is_wide_ppm(image)


def read_raster(data: bytes, image: Image.Image) -> Raster:
    """The values of an image that Pillow has opened.

    Args:
        data: its file.
        image: as Pillow opened it, not loaded yet.

    Returns:
        All its bands.

    Raises:
        RejectError: It is a file that Pillow would misread, and what reads it is not installed.
    """
    facts = tiff_facts(image)
    misread = facts.is_separate and facts.bits > 8
    if misread or (facts.is_signed and facts.bits == 8) or facts.bands > len(image.getbands()):
        return read_tiff(data)
    if image.mode.startswith(("I", "F")):
        return _gray(image, facts)
    if _jpeg2000_bits(image) > 8:
        return _jpeg2000(data, image)
    if any(";16" in mode for mode in _rawmodes(image)):
        has_alpha = image.mode == "RGBA"
        values = _sixteen_bits(data, image)
        return Raster(values, 65535, has_alpha, facts.is_inverted, facts.no_data)
    if _is_wide_ppm(image):
        return _ppm(data, image)
    return byte_raster(image)


def byte_raster(image: Image.Image) -> Raster:
    """The values of an image of 8 bits: gray or RGB, perhaps with alpha."""
    mode = image.mode
    if image.has_transparency_data:
        mode = "LA" if mode in ("L", "LA", "La") else "RGBA"
    elif mode == "1":
        mode = "L"
    elif mode not in ("L", "RGB"):
        mode = "RGB"
    values = np.asarray(image if mode == image.mode else image.convert(mode))
    return Raster(values.reshape(*values.shape[:2], -1), 255, has_alpha=mode.endswith("A"))


def read_tiff(data: bytes) -> Raster:
    """The values of the first page of a TIFF, of any type and number of bands.

    Args:
        data: the file.

    Returns:
        All its bands.

    Raises:
        RejectError: tifffile is not installed, or the image would not fit into memory.
    """
    tifffile = _import_tifffile(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        if page.size * page.dtype.itemsize > _MAX_BYTES:
            raise RejectError(Reject.TOO_LARGE, "its values do not fit in memory", data)
        try:
            values = page.asarray()
        except ValueError as error:
            if "imagecodecs" in str(error):  # most compressions are that package's
                raise RejectError(Reject.ODD_TIFF, str(error), data) from None
            raise
        if page.axes.startswith("S"):
            values = np.moveaxis(values, 0, -1)
        values = values.reshape(page.imagelength, page.imagewidth, -1)
        extra = [int(kind) for kind in page.extrasamples]
        no_data = _number(page.tags.valueof(_NO_DATA))
        is_inverted = int(page.photometric) == 0
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    # unassociated alpha, or associated
    has_alpha = values.shape[2] in (2, 4) and extra[-1:] in ([1], [2])
    return Raster(values, _limit(values.dtype), has_alpha, is_inverted, no_data)


def _import_tifffile(data: bytes) -> ModuleType:
    """The package, or a ``RejectError`` that says how it is installed."""
    try:
        import tifffile
    except ImportError:
        raise RejectError(Reject.ODD_TIFF, "no package tifffile", data) from None
    package: ModuleType = tifffile
    return package


def _gray(image: Image.Image, facts: TiffFacts) -> Raster:
    """Gray of more than 8 bits, which Pillow reads."""
    values = np.asarray(image)
    limit: float | None = 65535
    if image.mode == "F":
        limit = None
    elif image.format == "TIFF":
        if facts.bits == 32 and not facts.is_signed:  # Pillow has no such numbers
            values = values.view(np.uint32)
        limit = float(2 ** (facts.bits - facts.is_signed) - 1)
    return Raster(values[..., None], limit, False, facts.is_inverted, facts.no_data)


def _sixteen_bits(data: bytes, image: Image.Image) -> NDArray[np.uint16]:
    """The values of a colour image of 16 bits, of which Pillow reads a byte each."""
    if _rawmodes(image) == {"LA;16B"}:  # Pillow has no mode for gray and alpha of 16 bits
        bytes_of_both = np.asarray(_with_rawmodes(image, {"LA;16B": "RGBA"}))
        words: NDArray[np.uint16] = np.ascontiguousarray(bytes_of_both).view(">u2")
        return words.astype(np.uint16)
    other: Image.Image = Image.open(io.BytesIO(data), formats=[image.format or ""])
    swapped = {mode: mode[:-1] + _OTHER_BYTE[mode[-1]] for mode in _rawmodes(image)}
    values = np.asarray(image).astype(np.uint16)
    values <<= 8
    values |= np.asarray(_with_rawmodes(other, swapped))
    return values


def _ppm(data: bytes, image: Image.Image) -> Raster:
    """A binary PPM of 16 bits, which Pillow would scale to 8."""
    (tile,) = image.tile  # type: ignore[attr-defined]
    values = np.frombuffer(data, ">u2", image.width * image.height * 3, tile.offset)
    return Raster(values.reshape(image.height, image.width, 3).astype(np.uint16), tile.args[1])


def _jpeg2000_bits(image: Image.Image) -> int:
    """How many bits a value of an opened JPEG 2000 has at most; 0 of other formats."""
    file = getattr(image, "fp", None)
    if image.format != "JPEG2000" or file is None:
        return 0
    place = file.tell()
    file.seek(0)
    head = file.read(_JPEG2000_HEAD)
    file.seek(place)
    start = head.find(_JPEG2000_SIZE) + len(_JPEG2000_SIZE)
    count = int.from_bytes(head[start + 36 : start + 38], "big")
    # of each component a byte for its depth, less one and with the sign first, and two others
    depths = head[start + 38 : start + 38 + 3 * count : 3]
    return max(((depth & 0x7F) + 1 for depth in depths), default=0)


def _jpeg2000(data: bytes, image: Image.Image) -> Raster:
    """A JPEG 2000 in colour of more than 8 bits, of which Pillow has the upper 8."""
    try:
        import imagecodecs
    except ImportError:
        raise RejectError(Reject.DEEP_JPEG2000, "no package imagecodecs", data) from None
    values = np.atleast_3d(imagecodecs.jpeg2k_decode(data))
    limit = float(2 ** _jpeg2000_bits(image) - 1)
    return Raster(values, limit, has_alpha=image.mode.endswith("A"))


def _is_wide_ppm(image: Image.Image) -> bool:
    if image.format != "PPM" or image.mode != "RGB":
        return False
    (tile,) = image.tile  # type: ignore[attr-defined]
    is_binary = tile.codec_name == "ppm"
    return is_binary and isinstance(tile.args, tuple) and tile.args[-1] > 255


def _rawmodes(image: Image.Image) -> set[str]:
    """How the bytes of an image that is not loaded are laid out, as Pillow calls it."""
    modes = set[str]()
    for tile in getattr(image, "tile", ()):
        mode = tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args
        if isinstance(mode, str):
            modes.add(mode)
    return modes


def _with_rawmodes(image: Image.Image, rawmodes: dict[str, str]) -> Image.Image:
    """The image, which is not loaded yet, to be read as laid out in another way."""
    tiles = list[Any]()
    for tile in image.tile:  # type: ignore[attr-defined]
        if isinstance(tile.args, tuple):
            tiles.append(tile._replace(args=(rawmodes[tile.args[0]], *tile.args[1:])))
        else:
            tiles.append(tile._replace(args=rawmodes[tile.args]))
    image.tile = tiles  # type: ignore[attr-defined]
    return image


def _limit(kind: np.dtype[Any]) -> float | None:
    """The largest value of a type of integers."""
    return float(np.iinfo(kind).max) if np.issubdtype(kind, np.integer) else None


def _number(text: Any) -> float | None:
    """The number that a tag has as text, or None."""
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return None
