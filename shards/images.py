"""The one image decoder, of the build's validation and of training: bytes in, upright 8-bit RGB out, or a named reason."""

import io
from enum import StrEnum
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from PIL.Image import Transpose

from shards.errors import ShardError

Validation = Literal["decode", "header", "none"]  # how far a build looks into an image: all its pixels, its header, or not at all
# Of file names that are taken for images, in lower case
SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".bmp", ".dib", ".tif", ".tiff", ".gif",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx",
))  # fmt: skip
MAX_PIXELS = 89_478_485  # larger images are refused by their header; it is Pillow's own limit, so that Pillow does not warn below it

# Pillow opens some forty formats; the obscure ones have the least tested parsers, and bytes from the web pick them.
Image.init()
_FORMATS: list[str] = [f for f in ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000") if f in Image.OPEN]

_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
}  # fmt: skip


class Reject(StrEnum):
    """Why an input file is not in the set."""

    EMPTY = "empty file"
    UNREADABLE = "unreadable"
    NOT_AN_IMAGE = "not an image"
    CORRUPT = "corrupt image"
    TOO_LARGE = "too large"
    OTHER_FILE = "other file"
    NO_CLASS = "no class"
    DUPLICATE = "listed twice"
    NOT_A_FILE = "link or special file"
    UNSAFE_NAME = "unsafe name"


class RejectError(ShardError):
    """Raised for a file that cannot be a sample."""

    def __init__(self, reason: Reject, detail: str = "", data: bytes = b"") -> None:
        super().__init__(f"wanted an image, got {len(data)} bytes that cannot be decoded: {reason}: {detail}; replace or remove the file")
        self.reason = reason


def decode(data: bytes) -> Image.Image:
    """The image in ``data``, of an animation the first frame, upright, mode RGB, 8 bits a channel.

    EXIF (or XMP) orientation is applied; an unreadable block counts as none. Colour profiles are not applied. Gray, palette, CMYK, YCbCr
    become RGB by Pillow's ``convert``, LAB by littleCMS; transparency is composited on white. Integers of 16 bits or more are clipped to
    0…65535 and shifted right by 8; floats are scaled by 255 where all lie in 0…1, else clipped to 0…255 (NaN is 0).
    What is not a whole image of a known format and of at most ``MAX_PIXELS`` is a ``ShardError``.
    """
    return _decoded(_header(data), data)


def check(data: bytes, validate: Validation) -> int:
    """The EXIF orientation of what can be a sample, 1…8 (what cannot be read is 1), 0 where it was not looked at; else ``RejectError``.

    ``decode`` accepts exactly what ``"decode"`` passes; ``"header"`` opens but does not decode, ``"none"`` refuses only what is empty.
    """
    if validate == "none" and data:
        return 0
    image = _header(data)
    if validate == "decode":
        _decoded(image, data)
    return _orientation(image)


def shrink(data: bytes, max_side: int, quality: int) -> bytes:
    """An image with a side above ``max_side`` px as an upright JPEG whose longer side has them, any other unchanged, or ``RejectError``."""
    image = decode(data)
    if max(image.size) <= max_side:
        return data
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    image.save(small := io.BytesIO(), "JPEG", quality=quality)
    return small.getvalue()


def _header(data: bytes) -> Image.Image:
    if not data:
        raise RejectError(Reject.EMPTY, "no bytes", data)
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        raise RejectError(Reject.NOT_AN_IMAGE, f"no header of {', '.join(_FORMATS)}", data) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise RejectError(Reject.TOO_LARGE, str(error), data) from None
    except Exception as error:  # hostile headers reach every corner of every parser
        raise RejectError(Reject.CORRUPT, str(error), data) from error
    if image.width * image.height > MAX_PIXELS:
        raise RejectError(Reject.TOO_LARGE, f"{image.width} × {image.height} pixels, the limit is {MAX_PIXELS:,}", data)
    return image


def _decoded(image: Image.Image, data: bytes) -> Image.Image:
    try:
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        return _rgb(image.transpose(turn) if turn is not None else image)
    except MemoryError:
        raise RejectError(Reject.TOO_LARGE, f"{image.width} × {image.height} pixels do not fit in memory", data) from None
    except Exception as error:  # as above: OSError, SyntaxError, struct.error, IndexError, zlib.error …
        raise RejectError(Reject.CORRUPT, str(error) or type(error).__name__, data) from error


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1
    return value if value in _UPRIGHT else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), nan=0.0)
        scale = 255 if values.min() >= 0 and values.max() <= 1 else 1
        image = Image.fromarray(np.clip(values * scale, 0, 255).round().astype(np.uint8))
    elif image.mode.startswith("I"):
        image = Image.fromarray((np.clip(np.asarray(image), 0, 0xFFFF) >> 8).astype(np.uint8))
    elif image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")
