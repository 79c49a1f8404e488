"""The one image decoder, of the build's validation and of training.

Bytes go in; an upright image, RGB with 8 bits a channel, comes out, or a reason why not.
"""

import io
from pathlib import Path
from typing import IO, Literal
import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from shards.jpegs import without_pixels
from shards.rejects import Reject, RejectError

# what a build looks at: all of an image, its header, or only that it is not empty
Validation = Literal["decode", "header", "none"]
# of file names that are taken for images, in lower case
_EXTENSIONS = (
    "jpg jpeg jpe jfif mpo png apng webp avif bmp dib tif tiff gif ppm pgm pbm pnm jp2 j2k jpx"
)
SUFFIXES = frozenset(f".{extension}" for extension in _EXTENSIONS.split())
# larger images are refused by their header; it is Pillow's limit, so that it does not warn below
MAX_PIXELS = 89_478_485
# Pillow opens some forty formats; the obscure ones have the least tested parsers, and bytes from
# the web pick them
_WANTED_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000")
Image.init()
_FORMATS = [name for name in _WANTED_FORMATS if name in Image.OPEN]
# what makes an image upright, by its EXIF orientation; 1 is upright
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes) -> Image.Image:
    """The image in ``data``: upright, mode RGB, 8 bits a channel.

    - EXIF (or XMP) orientation is applied; an unreadable EXIF block counts as none. Colour profiles
      are not applied.
    - Gray, palette, CMYK and YCbCr become RGB by Pillow's ``convert``, LAB by littleCMS;
      transparency is composited on white.
    - Integers of 16 bits or more are clipped to 0…65535 and shifted right by 8; floats are scaled
      by 255 where all lie in 0…1, else clipped to 0…255 (NaN is 0).
    - Of an animation, the first frame.

    Args:
        data: an image file.

    Returns:
        The image.

    Raises:
        ShardError: No whole image of a known format and of at most ``MAX_PIXELS`` is in it.
    """
    image, _ = _read(data, pixels=True)
    return image


def check(data: bytes, validate: Validation) -> int:
    """Refuse what cannot be a sample.

    Args:
        data: an image file.
        validate: "decode" passes what ``decode`` takes, "header" what can be opened, "none" all
            that is not empty.

    Returns:
        The EXIF orientation, 1…8 (what cannot be read is 1), or 0 where it was not looked at.

    Raises:
        RejectError: The file is refused, for the reason in the error.
    """
    if data and validate == "none":
        return 0
    _, orientation = _read(data, pixels=validate == "decode", is_check=True)
    return orientation


def shrink(data: bytes, max_side: int, quality: int) -> tuple[bytes, int]:
    """Make a large image smaller.

    Args:
        data: an image file.
        max_side: how long the longer side may be, in pixels.
        quality: quality of the JPEG, 1…100.

    Returns:
        An upright JPEG whose longer side has ``max_side`` px, or ``data`` if it is no longer; and
        the EXIF orientation of either, 1…8.

    Raises:
        RejectError: The file does not decode.
    """
    header, _ = _read(data, pixels=False)
    if max(header.size) <= max_side:
        return data, check(data, "decode")
    image = decode(data)
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue(), 1


def upright_size(file: str | Path | IO[bytes]) -> tuple[int, int]:
    """The size of an image by its header alone, as ``decode`` would give it.

    Args:
        file: path of a local image file, or its bytes as a file.

    Returns:
        Width and height of the upright image in pixels.

    Raises:
        OSError: The file cannot be read.
        RejectError: No header of a known format is in it.
    """
    try:
        with Image.open(file, formats=_FORMATS) as image:
            # Pillow would decode all of a PNG to look for EXIF behind the pixels
            has_exif = image.format != "PNG" or "exif" in image.info
            orientation = image.getexif().get(ExifTags.Base.Orientation) if has_exif else 1
            width, height = image.size
    except UnidentifiedImageError as error:
        raise RejectError(Reject.NOT_AN_IMAGE, str(error)) from None
    except OSError:
        raise
    except Exception as error:  # as in _read
        raise RejectError(Reject.CORRUPT, str(error) or type(error).__name__) from error
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def _read(data: bytes, *, pixels: bool, is_check: bool = False) -> tuple[Image.Image, int]:
    """Open an image and turn whatever Pillow raises into a reason.

    Args:
        data: an image file.
        pixels: whether to decode it, too.
        is_check: whether only the outcome counts, and the pixels may be others.

    Returns:
        With its pixels the upright RGB image, else the opened one; and its EXIF orientation, 1…8.

    Raises:
        RejectError: The file is refused.
    """
    if not data:
        raise RejectError(Reject.EMPTY, "no bytes", data)
    try:
        shortened = without_pixels(data) if pixels and is_check else data
        if shortened is not data:
            return _open(shortened, pixels=True, eighth=True)
        return _open(data, pixels=pixels)
    except UnidentifiedImageError:
        detail = f"no header of {', '.join(_FORMATS)}"
        raise RejectError(Reject.NOT_AN_IMAGE, detail, data) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        detail = str(error) or "its pixels do not fit in memory"
        raise RejectError(Reject.TOO_LARGE, detail, data) from None
    except Exception as error:
        # hostile files reach every corner of every parser: OSError, SyntaxError, struct.error,
        # IndexError …
        raise RejectError(Reject.CORRUPT, str(error) or type(error).__name__, data) from error


def _open(data: bytes, *, pixels: bool, eighth: bool = False) -> tuple[Image.Image, int]:
    """What ``_read`` returns, of JPEGs perhaps an eighth of the size; or what Pillow raises."""
    image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError(
            f"{image.width} × {image.height} pixels, the limit is {MAX_PIXELS:,}"
        )
    if eighth:
        image.draft(None, (max(image.width // 8, 1), max(image.height // 8, 1)))
    if pixels:
        image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # a broken EXIF block says nothing about the pixels
        orientation = 1
    if orientation not in _TURNS:
        orientation = 1
    if pixels:
        upright = image if orientation == 1 else image.transpose(_TURNS[orientation])
        image = _to_rgb(upright)
    return image, orientation


def _to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB with 8 bits a channel, on white where it is transparent."""
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), nan=0.0)
        scale = 255 if values.min() >= 0 and values.max() <= 1 else 1
        image = Image.fromarray(np.clip(values * scale, 0, 255).round().astype(np.uint8))
    elif image.mode.startswith("I"):
        values = np.clip(np.asarray(image), 0, 0xFFFF)
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")
