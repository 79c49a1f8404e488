"""An image that may become a sample, and its bytes."""

from typing import NamedTuple
from shards import storage
from shards.rejects import Reject, RejectError

MAX_BYTES = (
    1 << 30
)  # larger files are refused unread: no image of a size that is decoded needs as much


class Candidate(NamedTuple):
    """An image that may become a sample: a file, a URL, or a tar's member; numbers are -1 where there is none, or not looked at."""

    path: str
    name: str
    label: int = -1
    key: str = ""
    size: int = -1  # bytes
    offset: int = -1  # in the tar
    text: str | None = None  # of its class


def read(image: Candidate) -> bytes:
    """The bytes of a candidate, or ``RejectError``; another ``ShardError`` if the object store fails."""
    if image.size > MAX_BYTES:
        raise RejectError(Reject.TOO_LARGE)
    if image.size < 0 and not storage.is_remote(image.path):  # no file: a pipe would block
        raise RejectError(Reject.UNREADABLE)
    part = (image.offset, image.offset + image.size) if image.offset >= 0 else ()
    try:
        return storage.read_bytes(image.path, *part)
    except OSError:
        raise RejectError(Reject.UNREADABLE) from None


def suffix(name: str) -> str:
    """``.jpg`` of ``a/b.JPG``; pathlib's takes ten times as long."""
    stem, dot, end = name.rpartition("/")[2].rpartition(".")
    return dot + end.lower() if stem and end else ""
