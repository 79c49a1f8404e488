"""Images that are in memory, as files that keep every pixel.

What has a file's bytes keeps them. A Pillow image or an array becomes a PNG, or a TIFF where a PNG
cannot hold its numbers or bands; the set's pixel rule then makes of it what it makes of any file.
"""

import hashlib
import io
from importlib.util import find_spec
from typing import Any, NamedTuple
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from shards.errors import ShardError
from shards.rejects import Reject, RejectError

# modes that a PNG keeps, and those that a TIFF keeps; all others are RGB in another form
_PNG_MODES = ("1", "L", "LA", "RGB", "RGBA", "I;16")
_TIFF_MODES = ("I", "F", "CMYK", "LAB", "I;16B")
# larger ones take twice the time for a tenth of the bytes
_PNG_LEVEL = 1
_WANTED = "a file's bytes, a path, a Pillow image or an array of [height, width(, bands)]"
Pixels = Image.Image | NDArray[Any]


class MemoryImage(NamedTuple):
    """An image without a file.

    Attributes:
        content: a digest of the file's bytes, or of the pixels.
        image: the file's bytes, or the pixels; an array where Pillow has no such image.
    """

    content: str
    image: bytes | Pixels


def memory_image(image: Any, key: str) -> MemoryImage:
    """Take an image as Python code has it.

    Args:
        image: bytes of a file, a Pillow image, or an array.
        key: the name of its sample, for messages.

    Returns:
        The image, and a digest that is equal for equal ones.

    Raises:
        RejectError: It is None, empty, or a Pillow image whose file is broken.
        ShardError: It is something else.
    """
    if image is None:
        raise RejectError(Reject.EMPTY, "no image")
    if isinstance(image, bytes | bytearray | memoryview):
        data = bytes(image)
        return MemoryImage(hashlib.sha256(data).hexdigest(), data)
    if isinstance(image, Image.Image):
        pixels: Pixels = _plain(image)
    elif hasattr(image, "__array__"):
        pixels = _pixels_of_array(np.asarray(image), key)
    else:
        raise ShardError(f"wanted {_WANTED} as the image of {key}, got {type(image).__name__}")
    if isinstance(pixels, Image.Image):
        form = f"{pixels.mode} {pixels.size} "
    else:
        form = f"{pixels.dtype.str} {pixels.shape} "
    digest = hashlib.sha256(form.encode())
    digest.update(pixels.tobytes())
    return MemoryImage(digest.hexdigest(), pixels)


def file_bytes(image: bytes | Pixels) -> bytes:
    """The bytes of a file with all pixels of an image.

    Args:
        image: of a ``MemoryImage``.

    Returns:
        The bytes as they came, or a PNG or a TIFF without losses.
    """
    if isinstance(image, bytes):
        return image
    file = io.BytesIO()
    if not isinstance(image, Image.Image):
        import tifffile  # or the array was refused

        kind = "rgb" if image.shape[2] in (3, 4) else "minisblack"
        tifffile.imwrite(
            file, image, photometric=kind, planarconfig="contig", metadata=None, software=False
        )
    elif image.mode in _PNG_MODES:
        image.save(file, "PNG", compress_level=_PNG_LEVEL)
    else:
        image.save(file, "TIFF")
    return file.getvalue()


def _plain(image: Image.Image) -> Image.Image:
    """A Pillow image upright, in a mode that a file keeps, without what is not pixels.

    Raises:
        RejectError: Its file, which Pillow reads only now, is broken.
    """
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception as error:  # as of any file, see shards.images
        raise RejectError(Reject.CORRUPT, str(error) or type(error).__name__) from None
    if 0 in upright.size:
        raise RejectError(Reject.EMPTY, "no pixels")
    if upright.has_transparency_data and upright.mode not in ("LA", "RGBA"):
        plain = upright.convert("RGBA")
    elif upright.mode in (*_PNG_MODES, *_TIFF_MODES):
        plain = upright.copy()
    else:
        plain = upright.convert("RGB")
    plain.info = {}
    return plain


def _pixels_of_array(values: NDArray[Any], key: str) -> Pixels:
    """The Pillow image of an array, or the array where Pillow has no such image.

    Args:
        values: [height, width] or [height, width, bands].
        key: the name of its sample, for messages.

    Raises:
        RejectError: It has no pixels.
        ShardError: It has another form, or needs tifffile, which is not installed.
    """
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    bands = values.shape[2] if values.ndim == 3 else 1
    if values.ndim not in (2, 3) or values.dtype.kind not in "buif":
        advice = "choose one of its images, or compute one"
    elif 0 in values.shape:
        raise RejectError(Reject.EMPTY, "no pixels")
    elif bands > 4 and bands > min(values.shape[:2]):
        advice = "put the bands last: transpose(1, 2, 0), of a tensor permute(1, 2, 0)"
    else:
        return _kept_array(values, key)
    raise ShardError(
        f"wanted {_WANTED} as the image of {key}, got {values.dtype} {[*values.shape]}; {advice}"
    )


def _kept_array(values: NDArray[Any], key: str) -> Pixels:
    """An array of an image's form in a type that files have."""
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    is_gray = values.ndim == 2
    if values.dtype == np.uint8 and (is_gray or values.shape[2] in (3, 4)):
        return Image.fromarray(np.ascontiguousarray(values))
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
    elif values.dtype not in (np.uint8, np.uint16):
        if values.min() < -(2**31) or values.max() >= 2**31:
            raise ShardError(f"wanted numbers of 32 bits as the image of {key}, got larger ones")
        values = values.astype(np.int32)
    if is_gray:
        return Image.fromarray(np.ascontiguousarray(values))
    if find_spec("tifffile") is None:
        raise ShardError(
            f"the image of {key}, {values.dtype} {[*values.shape]}, is kept by the package "
            "tifffile, which is not installed: pip install 'care-ssl[tiff]'; or make it uint8 "
            "of three bands"
        )
    return values
