"""What of an image goes into a set: its own bytes, or what the rule of the set makes of it."""

import io
from typing import NamedTuple
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shards import images
from shards.images import Validation
from shards.pixels import PixelRule, is_nearly_constant
from shards.rejects import Reject, RejectError

_PNG_LEVEL = 3  # of compression: photographs get hardly smaller by more
# long side over the short one: from here on half of the random crops of the paper's views, of 20 %
# to 100 % of the area, fit nowhere, and are the centre instead; from 6.7 on all of them
_ELONGATED = 4


class Making(NamedTuple):
    """What is made of every image of a set.

    Attributes:
        validate: what it has to pass, see ``shards.images.check``.
        max_side: px; an image with a longer side is made smaller and JPEG; None: none is.
        min_side: px; an image with a shorter side is left out; None: none is.
        quality: of those JPEGs, 1…100.
        rule: how its values become 8 bits and three channels.
    """

    validate: Validation = "decode"
    max_side: int | None = None
    min_side: int | None = None
    quality: int = 90
    rule: PixelRule = PixelRule()


class SampleFile(NamedTuple):
    """The file of a sample.

    Attributes:
        data: its bytes.
        suffix: of their format, "" for that of the image's name.
        orientation: EXIF's, 1…8, or 0 where it was not looked at.
        is_converted: whether the rule made it.
        is_faded: whether few gray levels are left of many values.
        is_flat: whether it is nearly constant; None where nobody looked.
        is_elongated: whether it was looked at and is so long that its views are mostly its centre.
    """

    data: bytes
    suffix: str = ""
    orientation: int = 0
    is_converted: bool = False
    is_faded: bool = False
    is_flat: bool | None = None
    is_elongated: bool = False


def prepare_sample(data: bytes, making: Making, *, look: bool = False) -> SampleFile:
    """Check an image, and change it where its set wants that.

    It is decoded once, if at all.

    Args:
        data: an image file.
        making: what is made of it.
        look: whether to see if it is nearly constant or elongated.

    Returns:
        What goes into the set: the bytes as they are; or a smaller JPEG; or a PNG of what the rule
        made, 8 bits and three channels.

    Raises:
        RejectError: It cannot be a sample.
    """
    if data and images.needs_rule(data, making.rule):
        return _make(data, making)
    validate = making.validate
    if making.max_side is not None or making.min_side is not None:
        header = images.read(data, pixels=False, fit=making.max_side).image
        _check_size(header, making.min_side)
        if making.max_side is not None:
            if max(header.size) > making.max_side:
                return _make(data, making)
            validate = "decode"
    if look and validate == "decode":
        decoded = images.read(data)
        return _with_looks(SampleFile(data, orientation=decoded.orientation), decoded.image)
    return SampleFile(data, orientation=images.check(data, validate))


def _make(data: bytes, making: Making) -> SampleFile:
    """The file of an image that is not stored as it is, or has to be decoded to know."""
    decoded = images.read(data, rule=making.rule, fit=making.max_side)
    image = decoded.image
    _check_size(image, making.min_side)
    facts = SampleFile(data, "", decoded.orientation, decoded.is_converted, decoded.is_faded)
    facts = _with_looks(facts, image)
    file = io.BytesIO()
    if making.max_side is not None and max(image.size) > making.max_side:
        size = (making.max_side, making.max_side)
        image.thumbnail(size, Image.Resampling.LANCZOS)
        image.save(file, "JPEG", quality=making.quality)
        return facts._replace(data=file.getvalue(), suffix=".jpg", orientation=1)
    if decoded.is_converted:
        image.save(file, "PNG", compress_level=_PNG_LEVEL)
        return facts._replace(data=file.getvalue(), suffix=".png", orientation=1)
    return facts


def _with_looks(sample: SampleFile, image: Image.Image) -> SampleFile:
    """A sample with what a look at its pixels tells."""
    return sample._replace(
        is_flat=is_nearly_constant(_small(image)),
        is_elongated=max(image.size) > _ELONGATED * min(image.size),
    )


def _small(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an image, or some of them, evenly over it."""
    step = max(1, min(image.size) // 64)
    return np.asarray(image)[::step, ::step]


def _check_size(image: Image.Image, min_side: int | None) -> None:
    """Refuse an image one of whose sides is shorter than wanted."""
    if min_side is not None and min(image.size) < min_side:
        raise RejectError(Reject.TOO_SMALL, f"{image.width} × {image.height} pixels")
