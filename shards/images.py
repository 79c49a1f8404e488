"""The one image decoder, of the build and of training.

Bytes go in; an upright image, RGB with 8 bits a channel, comes out, or a reason why not. Files of
users become so by the rule of their set, see ``shards.pixels``; samples of a set are plain.
"""

import ctypes
import io
import logging
import sys
import warnings
from pathlib import Path
from typing import IO, Literal, NamedTuple
import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from shards import kinds, rasters
from shards.jpegs import without_pixels
from shards.pixels import Conversion, PixelRule, Raster, convert
from shards.rejects import Reject, RejectError

# what a build looks at: all of an image, its header, or only that it is not empty
Validation = Literal["decode", "header", "none"]
# of file names that are taken for images, in lower case
_EXTENSIONS = (
    "jpg jpeg jpe jfif mpo png apng webp avif bmp dib tif tiff gif ppm pgm pbm pnm jp2 j2k jpx"
)
SUFFIXES = kinds.PLUGIN_SUFFIXES.union(f".{extension}" for extension in _EXTENSIONS.split())
# larger images are refused by their header; it is Pillow's limit, so that it does not warn below
MAX_PIXELS = 89_478_485
# of a JPEG that is read at a fraction of its size; the coefficients alone fill a gigabyte
MAX_JPEG_PIXELS = 3 * MAX_PIXELS
# Pillow opens some forty formats; the obscure ones have the least tested parsers, and bytes from
# the web pick them
_WANTED_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000")
Image.init()
_FORMATS = [name for name in _WANTED_FORMATS if name in Image.OPEN]
_JPEG_START = b"\xff\xd8"
_BEGINNING = 128  # bytes by which the formats of plugins are known
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


def _silence() -> None:
    """Keep Pillow and libtiff from printing lines that name no file.

    What they say of a broken file becomes the reason why it is left out.
    """
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")
    try:
        # the libraries that Pillow's module is linked with are found through it
        ctypes.CDLL(sys.modules["PIL._imaging"].__file__).TIFFSetErrorHandler(None)
    except (AttributeError, KeyError, OSError):  # Pillow without libtiff, or linked in another way
        return


_silence()


class Decoded(NamedTuple):
    """An image that was read.

    Attributes:
        image: the upright RGB image; only opened where its pixels were not wanted.
        orientation: EXIF's, 1…8; what cannot be read is 1.
        is_converted: whether its file means other pixels to programs that know no rule.
        is_faded: whether few gray levels are left of many values.
    """

    image: Image.Image
    orientation: int
    is_converted: bool = False
    is_faded: bool = False


def decode(data: bytes, rule: PixelRule | None = None) -> Image.Image:
    """The image in ``data``: upright, mode RGB, 8 bits a channel.

    - EXIF (or XMP) orientation is applied; an unreadable EXIF block counts as none. Colour profiles
      are not applied.
    - Gray, palette, CMYK and YCbCr become RGB by Pillow's ``convert``, LAB by littleCMS;
      transparency is composited on white.
    - Other bands and values of more than 8 bits become RGB by the rule. Without one, as sets of
      older versions have it, integers are clipped to 0…65535 and shifted right by 8; floats are
      scaled by 255 where all lie in 0…1, else clipped to 0…255 (NaN is 0).
    - Of an animation, the first frame; of a TIFF, the first page.

    Args:
        data: an image file.
        rule: of a user's file, the rule of its set; a sample of a set needs none.

    Returns:
        The image.

    Raises:
        ShardError: No whole image of a known format and of at most ``MAX_PIXELS`` is in it.
    """
    return read(data, rule=rule).image


def decode_bands(data: bytes) -> Image.Image:
    """The four bands of a sample of a set whose rule names four.

    The mode is RGBX, whose fourth band no operation of Pillow's takes for transparency.

    Args:
        data: the PNG that the build has made.

    Raises:
        RejectError: It is not such a file.
    """
    image = read(data, pixels=False).image
    try:
        image.load()
    except Exception as error:  # as in read
        raise RejectError(Reject.CORRUPT, str(error) or type(error).__name__, data) from error
    if image.mode != "RGBA":
        raise RejectError(Reject.FEW_BANDS, image.mode, data)
    return Image.merge("RGBX", image.split())


def check(data: bytes, validate: Validation) -> int:
    """Refuse what cannot be a sample.

    Args:
        data: an image file.
        validate: "decode" passes what ``decode`` takes, which of most JPEGs is known without their
            pixels, see ``shards.jpegs``; "header" what can be opened; "none" all that is not empty.

    Returns:
        The EXIF orientation, 1…8 (what cannot be read is 1), or 0 where it was not looked at.

    Raises:
        RejectError: The file is refused, for the reason in the error.
    """
    if data and validate == "none":
        return 0
    if validate == "header":
        return read(data, pixels=False).orientation
    return read(data, is_check=True).orientation


def read(
    data: bytes,
    *,
    pixels: bool = True,
    is_check: bool = False,
    rule: PixelRule | None = None,
    fit: int | None = None,
) -> Decoded:
    """Open an image and turn whatever Pillow raises into a reason.

    Args:
        data: an image file.
        pixels: whether to decode it, too.
        is_check: whether only the outcome counts, and the pixels may be others.
        rule: as for ``decode``.
        fit: px; an image of more than ``MAX_PIXELS`` may be read at a fraction of its size whose
            longer side is no less, where its format can.

    Returns:
        The image.

    Raises:
        RejectError: The file is refused.
    """
    if not data:
        raise RejectError(Reject.EMPTY, "no bytes", data)
    try:
        shortened = without_pixels(data) if is_check else data
        if shortened is not data:
            return _read_eighth(shortened)
        return _read(data, pixels=pixels, rule=rule, fit=fit)
    except RejectError:
        raise
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


def needs_rule(data: bytes, rule: PixelRule) -> bool:
    """Whether the rule makes other pixels of a file than any program that reads images.

    Args:
        data: an image file, of which the header is looked at.
        rule: the rule of its set.

    Raises:
        RejectError: It is of a kind that only a plugin reads, which is not installed.
    """
    drops = rule.alpha == "drop"
    if rule.bands:
        return True
    if data.startswith(_JPEG_START):
        return False
    if data.startswith((b"GIF8", b"BM", b"RIFF")):
        return drops
    if data.startswith(b"\x89PNG"):
        return drops or data[24:25] == b"\x10"  # bits
    if kinds.plugin_format(data):
        return True
    try:
        image = _open(data, _FORMATS)
        return rasters.is_wide(image) or (drops and image.has_transparency_data)
    except Exception:  # as in read
        return rasters.is_tiff(data)


def read_values(data: bytes) -> Raster | None:
    """The values of a file that the rule of its set has to be decided for.

    Args:
        data: an image file.

    Returns:
        Those of more than 8 bits or of other bands than red, green and blue; None of other files.

    Raises:
        RejectError: The file is refused.
    """
    if data.startswith(_JPEG_START):
        return None
    try:
        if kinds.plugin_format(data):
            return None
        return _values(data)
    except RejectError:
        raise
    except Exception as error:  # as in read
        raise RejectError(Reject.CORRUPT, str(error) or type(error).__name__, data) from error


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
    if isinstance(file, str | Path):
        with Path(file).open("rb") as opened:
            return upright_size(opened)
    try:
        with Image.open(file, formats=_formats_of(file)) as image:
            # Pillow would decode all of a PNG to look for EXIF behind the pixels
            has_exif = image.format != "PNG" or "exif" in image.info
            orientation = image.getexif().get(ExifTags.Base.Orientation) if has_exif else 1
            width, height = image.size
    except UnidentifiedImageError as error:
        raise RejectError(Reject.NOT_AN_IMAGE, str(error)) from None
    except OSError:
        raise
    except RejectError:
        raise
    except Exception as error:  # as in read
        raise RejectError(Reject.CORRUPT, str(error) or type(error).__name__) from error
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def _formats_of(file: IO[bytes]) -> list[str]:
    """Pillow's names of the formats that a file may have, by its beginning."""
    plugin = kinds.plugin_format(file.read(_BEGINNING))
    file.seek(0)
    return [*_FORMATS, plugin] if plugin else _FORMATS


def _read(data: bytes, *, pixels: bool, rule: PixelRule | None, fit: int | None) -> Decoded:
    """What ``read`` returns, or what Pillow raises."""
    plugin = kinds.plugin_format(data)
    try:
        formats = [*_FORMATS, plugin] if plugin else _FORMATS
        image = _open(data, formats, fit, is_header=not pixels)
    except UnidentifiedImageError:
        if rule is None or not rasters.is_tiff(data):
            raise
        conversion = convert(rasters.read_tiff(data), rule)
        return Decoded(Image.fromarray(conversion.pixels), 1, True, conversion.is_faded)
    if not pixels:
        return Decoded(image, _orientation(image))
    by_rule = None if rule is None else _convert(data, image, rule)
    if by_rule is None:
        image.load()
        orientation = _orientation(image)
        rgb = _to_rgb(_upright(image, orientation))
        return Decoded(rgb, orientation, is_converted=plugin is not None)
    orientation = _orientation(image)
    rgb = _upright(Image.fromarray(by_rule.pixels), orientation)
    return Decoded(rgb, orientation, is_converted=True, is_faded=by_rule.is_faded)


def _read_eighth(data: bytes) -> Decoded:
    """A JPEG at an eighth of its size, or what Pillow raises."""
    image = _open(data, _FORMATS)
    image.draft("", (max(image.width // 8, 1), max(image.height // 8, 1)))
    image.load()
    orientation = _orientation(image)
    return Decoded(_to_rgb(_upright(image, orientation)), orientation)


def _open(
    data: bytes, formats: list[str], fit: int | None = None, *, is_header: bool = False
) -> Image.Image:
    """Open an image whose pixels fit in memory, or raise what Pillow raises.

    Args:
        data: an image file.
        formats: Pillow's names of the formats that it may have.
        fit: as for ``read``.
        is_header: whether its pixels stay unread, and its size is that of the file.
    """
    image: Image.Image
    limit = MAX_PIXELS
    if fit is not None and data.startswith(_JPEG_START):
        # Image.open refuses by the size that is stored, not by that which is read
        try:
            image = JpegImageFile(io.BytesIO(data))
        except SyntaxError as error:
            raise UnidentifiedImageError(str(error)) from error
        if is_header:
            limit = MAX_JPEG_PIXELS
        elif limit < image.width * image.height <= MAX_JPEG_PIXELS:
            scale = fit / max(image.size)
            image.draft("", (int(image.width * scale), int(image.height * scale)))
    else:
        image = Image.open(io.BytesIO(data), formats=formats)
    if image.width * image.height > limit:
        raise Image.DecompressionBombError(
            f"{image.width} × {image.height} pixels, the limit is {limit:,}"
        )
    return image


def _convert(data: bytes, image: Image.Image, rule: PixelRule) -> Conversion | None:
    """An opened image by the rule, None where it is what any program makes of it."""
    if rule.bands or rasters.is_wide(image):
        return convert(rasters.read_raster(data, image), rule)
    if rule.alpha == "drop" and image.has_transparency_data:
        return convert(rasters.byte_raster(image), rule)
    return None


def _values(data: bytes) -> Raster | None:
    """What ``read_values`` returns, or what Pillow and tifffile raise."""
    try:
        image = _open(data, _FORMATS)
    except UnidentifiedImageError:
        return rasters.read_tiff(data) if rasters.is_tiff(data) else None
    if image.mode == "RGBA" or rasters.is_wide(image):
        return rasters.read_raster(data, image)
    bands = rasters.tiff_facts(image).bands
    if bands > len(image.getbands()):
        # Pillow leaves the further ones out; what is in them decides nothing
        colours = rasters.byte_raster(image).values
        further = np.zeros((*colours.shape[:2], bands - colours.shape[2]), np.uint8)
        return Raster(np.concatenate([colours, further], 2), 255)
    return None


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1…8."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # a broken EXIF block says nothing about the pixels
        orientation = 1
    return orientation if orientation in _TURNS else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == 1 else image.transpose(_TURNS[orientation])


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
