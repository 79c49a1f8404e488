"""What a source lists: images that may become samples, and what is none."""

from collections.abc import Sequence
from typing import NamedTuple
from shards import storage
from shards.errors import ShardError
from shards.images import SUFFIXES
from shards.rejects import Reject, RejectError, Rejection

# larger files are refused unread: no image of a size that is decoded needs as much
MAX_BYTES = 1 << 30


# of images whose names do not say what they are
_MAGIC = {
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"RIFF": ".webp",
    b"BM": ".bmp",
    b"II*": ".tif",
    b"MM\0*": ".tif",
    b"\0\0\0\x0cjP": ".jp2",
    b"P5": ".pgm",
    b"P6": ".ppm",
}


class Candidate(NamedTuple):
    """An image that may become a sample: a file, an object, or a member of a tar.

    Attributes:
        path: path or URL of the file, or of the tar or the spool that it is in.
        name: its name in the source; no two samples share one.
        label: its class number, a position in the source's classes, or -1.
        key: its name in the set.
        size: how many bytes it has; -1 where there is no file, or nobody has looked.
        offset: where its first byte is in that file, or -1 if it is all of the file.
        class_name: its class as the source says it, or None.
        content: digest of its bytes or pixels, where the source is no file; it stands for the size.
    """

    path: str
    name: str
    label: int = -1
    key: str = ""
    size: int = -1
    offset: int = -1
    class_name: str | None = None
    content: str = ""


class Listing(NamedTuple):
    """Everything that a source lists.

    Attributes:
        images: what may become a sample, in the order of the source.
        rejects: what may not.
        notes: what a user might not expect, one line each.
        is_table: whether a table, or files beside the images, said the classes; not folders.
        form: what the source was recognised as, in words.
        has_boxes: whether it has boxes around objects, too.
    """

    images: list[Candidate]
    rejects: list[Rejection]
    notes: Sequence[str] = ()
    is_table: bool = False
    form: str = ""
    has_boxes: bool = False


def read_image(image: Candidate) -> bytes:
    """Read the file of a candidate that is no link; such are read by ``shards.fetch``.

    Args:
        image: the candidate.

    Returns:
        The bytes of the file or the member.

    Raises:
        RejectError: It is too large, or no file.
        ShardError: The disk does not give what it listed, or the object store fails. That says
            nothing of the image, which is no reject: the build stops, and can be repeated.
    """
    if image.size > MAX_BYTES:
        raise RejectError(Reject.TOO_LARGE)
    is_listed = image.size >= 0
    if not is_listed and not storage.is_remote(image.path):  # no file: a pipe would block
        raise RejectError(Reject.UNREADABLE)
    try:
        if image.offset < 0:
            return storage.read_bytes(image.path)
        return storage.read_bytes(image.path, image.offset, image.offset + image.size)
    except OSError as error:
        if not is_listed:  # a name in a table, of an object that nobody has looked for
            raise RejectError(Reject.UNREADABLE) from None
        raise ShardError(
            f"cannot read {image.path}: {error.strerror or error}; it was there when the source "
            "was listed. Bring it back (is its disk still there?) and repeat the command, which "
            "goes on where it stopped"
        ) from error


def is_link(name: str) -> bool:
    """Whether a name is an address on the web."""
    return name.startswith(("http://", "https://"))


def is_elsewhere(path: str) -> bool:
    """Whether the file of an image is on the web or in a store; a link may have secrets."""
    return is_link(path) or storage.is_remote(path)


def file_suffix(name: str, data: bytes) -> str:
    """The suffix for an image's file in a set: its own, or if it has none its format's."""
    ending = suffix(name)
    if ending in SUFFIXES:
        return ending
    for magic, ending_of_format in _MAGIC.items():
        if data.startswith(magic):
            return ending_of_format
    return ".jpg"


def suffix(name: str) -> str:
    """The suffix of a name in lower case, ``.jpg`` of ``a/b.JPG`` and of ``http://a/b.jpg?w=9``.

    pathlib's takes ten times as long.
    """
    if is_link(name):
        name = name.partition("?")[0].partition("#")[0]
    stem, dot, end = name.rpartition(".")
    is_of_folder = "/" in end
    if not stem or not end or is_of_folder or stem.endswith("/"):
        return ""
    return dot + end.lower()
