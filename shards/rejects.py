"""Why an input is left out: nothing disappears without a reason and a name."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple
from shards.errors import ShardError


class Reject(StrEnum):
    """Why an input file is not in the set, or an image or a box of an annotation not used."""

    EMPTY = "empty file"
    UNREADABLE = "unreadable"
    NOT_AN_IMAGE = "not an image"
    CORRUPT = "corrupt image"
    TOO_LARGE = "too large"
    OTHER_FILE = "other file"
    NOT_FETCHED = "link not fetched"
    JUNK = "left by another program"
    DUPLICATE = "listed twice"
    NOT_A_FILE = "link or special file"
    SPARSE = "stored with holes (pack it without tar's -S)"
    UNSAFE_NAME = "unsafe name"
    NO_IMAGE = "image missing or broken"
    NO_ANNOTATION = "annotation file missing or broken"
    UNKNOWN_IMAGE = "box of an unlisted image"
    UNKNOWN_CATEGORY = "unknown category"
    DEGENERATE = "box without area"
    OUTSIDE = "box outside of the image"
    NO_BOX = "object without a box"
    BAD_MASK = "unusable mask or part of one"
    NO_NAME = "image entry without id or name"
    SHARED_ID = "id of several images"
    SHARED_FILE = "file of several entries"
    OTHER_SIZE = "not of the annotated size"
    TOO_SMALL = "smaller than --min-side"
    BANDS = "bands that are not red, green and blue (choose them by --bands 3,2,1)"
    FEW_BANDS = "fewer bands than --bands names"
    ODD_TIFF = "TIFF that Pillow cannot read (pip install 'care-ssl[tiff]', or convert it)"
    DEEP_JPEG2000 = (
        "JPEG 2000 in colour of more than 8 bits (pip install 'care-ssl[tiff]', or convert it)"
    )
    HEIF = "HEIC (pip install 'care-ssl[heif]', or convert it to JPEG)"
    JPEG_XL = "JPEG XL (pip install 'care-ssl[jxl]', or convert it to PNG)"
    RAW = "raw file of a camera (develop it to JPEG or TIFF)"
    UNUSUAL = "TGA or another rare format (convert it to PNG)"
    HDR = "OpenEXR or Radiance HDR (convert it to TIFF of 32 bits)"
    DICOM = "DICOM (convert it to TIFF or PNG of 16 bits)"
    LAYERED = "file of an image editor (export it as PNG or TIFF)"


class Rejection(NamedTuple):
    """One input that is left out.

    Attributes:
        reason: a ``Reject``; of what a file says, any text.
        name: what is left out.
    """

    reason: str
    name: str


# what was never an image of the user's: a source may have any number of these
NO_IMAGES = frozenset((Reject.OTHER_FILE, Reject.JUNK))


class RejectError(ShardError):
    """Raised for a file that cannot be a sample.

    Args:
        reason: why not.
        detail: what the decoder said.
        data: the bytes of the file.
    """

    def __init__(self, reason: Reject, detail: str = "", data: bytes = b"") -> None:
        super().__init__(
            f"wanted an image, got {len(data)} bytes that cannot be decoded: "
            f"{reason}: {detail}; replace or remove the file"
        )
        self.reason = reason


def group_by_reason(rejections: Iterable[Rejection]) -> dict[str, list[str]]:
    """The names that were left out, by reason, both in the order that they come in."""
    names = dict[str, list[str]]()
    for reason, name in rejections:
        names.setdefault(str(reason), []).append(name)
    return names


def describe(names: Mapping[str, Sequence[str]]) -> str:
    """What was left out, as a part of a message: how many of each reason, and three examples.

    Args:
        names: by reason.

    Returns:
        The text, on one line.
    """
    reasons = list[str]()
    for reason, of_reason in names.items():
        examples = list(of_reason[:3])
        if len(of_reason) > 3:
            examples.append("…")
        reasons.append(f"{len(of_reason)} {reason} ({', '.join(examples)})")
    return "; ".join(reasons)
