"""The one image decoder, of the build's validation and of training: bytes in, upright 8-bit RGB out, or a named reason."""

import io
from typing import Literal
import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from shards.rejects import Reject, RejectError

Validation = Literal[
    "decode", "header", "none"
]  # what a build looks at: all of an image, its header, or only that it is not empty
SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".apng",
        ".webp",
        ".avif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".gif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jp2",
        ".j2k",
        ".jpx",
    }
)  # of file names that are taken for images, in lower case
MAX_PIXELS = 89_478_485  # larger images are refused by their header; it is Pillow's own limit, so that Pillow does not warn below it
# Pillow opens some forty formats; the obscure ones have the least tested parsers, and bytes from the web pick them.
Image.init()
_FORMATS: list[str] = [
    f
    for f in ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000")
    if f in Image.OPEN
]
_TURNS = (
    "FLIP_LEFT_RIGHT",
    "ROTATE_180",
    "FLIP_TOP_BOTTOM",
    "TRANSPOSE",
    "ROTATE_270",
    "TRANSVERSE",
    "ROTATE_90",
)
_UPRIGHT = {orientation: Image.Transpose[turn] for orientation, turn in enumerate(_TURNS, 2)}


def decode(data: bytes) -> Image.Image:
    """The image in ``data``, of an animation the first frame, upright, mode RGB, 8 bits a channel.

    EXIF (or XMP) orientation is applied, colour profiles are not. Gray, palette, CMYK, YCbCr become RGB by Pillow's ``convert``, LAB by
    littleCMS; transparency is composited on white. Integers of 16 bits or more are clipped to 0…65535 and shifted right by 8; floats are
    scaled by 255 where all lie in 0…1, else clipped to 0…255 (NaN is 0). What is no whole image of ≤ ``MAX_PIXELS`` is a ``ShardError``.
    """
    return _read(data, pixels=True)[0]


def check(data: bytes, validate: Validation) -> int:
    """The EXIF orientation, 1…8, of what ``decode`` takes ("decode") or opens ("header"), 0 of any bytes ("none"), or ``RejectError``."""
    return 0 if data and validate == "none" else _read(data, pixels=validate == "decode")[1]


def shrink(data: bytes, max_side: int, quality: int) -> bytes:
    """An image with a side above ``max_side`` px as an upright JPEG whose longer side has them, any other unchanged, or ``RejectError``."""
    image = decode(data)
    if max(image.size) <= max_side:
        return data
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    image.save(small := io.BytesIO(), "JPEG", quality=quality)
    return small.getvalue()


def _read(data: bytes, *, pixels: bool) -> tuple[Image.Image, int]:
    # The opened image, or with its pixels the upright RGB one, and its orientation.
    if not data:
        raise RejectError(Reject.EMPTY, "no bytes", data)
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError(
                f"{image.width} × {image.height} pixels, the limit is {MAX_PIXELS:,}"
            )
        if pixels:
            image.load()
        try:
            turn = image.getexif().get(ExifTags.Base.Orientation)
        except Exception:  # a broken EXIF block says nothing about the pixels
            turn = 1
        if pixels:
            image = _rgb(image.transpose(_UPRIGHT[turn]) if turn in _UPRIGHT else image)
        return image, turn if turn in _UPRIGHT else 1
    except UnidentifiedImageError:
        raise RejectError(
            Reject.NOT_AN_IMAGE, f"no header of {', '.join(_FORMATS)}", data
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise RejectError(
            Reject.TOO_LARGE, str(error) or "its pixels do not fit in memory", data
        ) from None
    except Exception as error:  # hostile files reach every corner of every parser: OSError, SyntaxError, struct.error, IndexError …
        raise RejectError(Reject.CORRUPT, str(error) or type(error).__name__, data) from error


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
