"""Images that are in memory, as files that keep every pixel.

What has a file's bytes keeps them. A Pillow image or an array becomes a PNG, or a TIFF where a PNG
cannot hold its numbers; how those become 8 bits a channel is decided where any file is decoded.
"""

import hashlib
import io
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
_WANTED = "a file's bytes, a path, a Pillow image or an array of [height, width(, 1, 3 or 4)]"


class MemoryImage(NamedTuple):
    """An image without a file.

    Attributes:
        content: a digest of the file's bytes, or of the pixels.
        image: the file's bytes, or the pixels.
    """

    content: str
    image: bytes | Image.Image


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
        pixels = _plain(image)
    elif hasattr(image, "__array__"):
        pixels = _image_of_array(np.asarray(image), key)
    else:
        raise ShardError(f"wanted {_WANTED} as the image of {key}, got {type(image).__name__}")
    if 0 in pixels.size:
        raise RejectError(Reject.EMPTY, "no pixels")
    digest = hashlib.sha256(f"{pixels.mode} {pixels.size} ".encode())
    digest.update(pixels.tobytes())
    return MemoryImage(digest.hexdigest(), pixels)


def file_bytes(image: bytes | Image.Image) -> bytes:
    """The bytes of a file with all pixels of an image.

    Args:
        image: of a ``MemoryImage``.

    Returns:
        The bytes as they came, or a PNG or a TIFF.
    """
    if isinstance(image, bytes):
        return image
    file = io.BytesIO()
    if image.mode in _PNG_MODES:
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
    if upright.has_transparency_data and upright.mode not in ("LA", "RGBA"):
        plain = upright.convert("RGBA")
    elif upright.mode in (*_PNG_MODES, *_TIFF_MODES):
        plain = upright.copy()
    else:
        plain = upright.convert("RGB")
    plain.info = {}
    return plain


def _image_of_array(values: NDArray[Any], key: str) -> Image.Image:
    """The Pillow image of an array.

    Args:
        values: [height, width], [height, width, 1], or of three or four channels of uint8.
        key: the name of its sample, for messages.

    Raises:
        ShardError: It has another form.
    """
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    is_colour = values.ndim == 3 and values.shape[2] in (3, 4) and values.dtype == np.uint8
    if not is_colour and not (values.ndim == 2 and values.dtype.kind in "uif"):
        raise ShardError(
            f"wanted {_WANTED} as the image of {key}, got {values.dtype} "
            f"{list(values.shape)}{_advice(values)}"
        )
    if values.dtype in (np.uint8, np.uint16):
        return Image.fromarray(np.ascontiguousarray(values))
    if values.dtype.kind == "f":
        return Image.fromarray(values.astype(np.float32))
    if values.size and (values.min() < -(2**31) or values.max() >= 2**31):
        raise ShardError(f"wanted numbers of 32 bits as the image of {key}, got larger ones")
    return Image.fromarray(values.astype(np.int32))


def _advice(values: NDArray[Any]) -> str:
    """What helps with an array of another form, as the end of a message."""
    if values.ndim == 3 and values.shape[0] in (1, 3, 4) and values.shape[2] not in (1, 3, 4):
        return "; put the channels last: transpose(1, 2, 0), of a tensor permute(1, 2, 0)"
    if values.ndim == 3 and values.shape[2] in (3, 4):
        return "; colours are uint8: scale them to 0…255, round, and astype('uint8')"
    return "; choose or compute one or three channels"
