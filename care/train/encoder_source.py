"""What an encoder is asked for by: a place, which network there, and which architecture it has."""

from pathlib import Path
from typing import NamedTuple
from care.colour_split import SPACES
from care.encoders import ENCODERS
from care.errors import CareError
from care.vit import VITS
from shards import storage

LIBRARIES = ("torchvision", "timm")


class EncoderSource(NamedTuple):
    """Where an encoder is from.

    Attributes:
        place: path or URL of a run or a file.
        branch: which network of several: a word of its names, such as ``teacher``, or their
            beginning; "" for the one that gradients trained.
        architecture: what ``build_encoder`` makes; "" for what the weights tell.
    """

    place: str
    branch: str = ""
    architecture: str = ""

    def with_architecture(self, name: str) -> str:
        """How to ask for the same with an architecture, for a message."""
        return ":".join(part for part in (self.place, self.branch, name) if part)


def parse_source(source: str | Path) -> EncoderSource:
    """Take ``PLACE``, ``PLACE:BRANCH``, ``PLACE:ARCHITECTURE`` or both apart.

    Colons in a place, of ``s3://`` or in a file's name, stay: the longest part that exists is it.

    Args:
        source: as a user gives it.

    Returns:
        Its parts; where nothing is there, all of it as the place.
    """
    text = str(source)
    scheme, mark, _ = text.partition("://")
    first = len(scheme + mark) if mark else 1
    colons = [number for number in range(first, len(text)) if text[number] == ":"]
    for end in (len(text), *reversed(colons)):
        place = text[:end]
        if storage.locate(place).exists():
            return _with_parts(place, text[end + 1 :])
    return EncoderSource(text)


def with_branch(source: str, branch: str) -> str:
    """How to ask for another network of the same file.

    Args:
        source: as a user gives it.
        branch: which network, as of ``EncoderSource``.

    Raises:
        CareError: The source names one already.
    """
    parts = parse_source(source)
    if parts.branch:
        raise CareError(f"{source} names its network itself, got {branch!r} as well; leave one out")
    return parts._replace(branch=branch).with_architecture(parts.architecture)


def _with_parts(place: str, parts: str) -> EncoderSource:
    """A source by what follows its place."""
    first, _, rest = parts.partition(":")
    if first in {*ENCODERS, *VITS, *LIBRARIES, *SPACES}:
        return EncoderSource(place, "", parts)
    return EncoderSource(place, first, rest)
