"""Kinds of image files that Pillow alone does not read: plugins, and words that help."""

import importlib
from collections.abc import Iterable
from typing import NamedTuple
from PIL import Image
from shards.rejects import Reject, RejectError


class _Plugin(NamedTuple):
    """A package that teaches Pillow a format.

    Attributes:
        module: what is imported.
        register: the function of it that does so; "" where the import does.
        format: Pillow's name of the format.
        reason: why its files are left out where the package is not installed.
    """

    module: str
    register: str
    format: str
    reason: Reject


_HEIF = _Plugin("pillow_heif", "register_heif_opener", "HEIF", Reject.HEIF)
_JPEG_XL = _Plugin("pillow_jxl", "", "JXL", Reject.JPEG_XL)
# suffixes of files that become samples where the plugin is installed
PLUGIN_SUFFIXES = frozenset((".heic", ".heif", ".hif", ".jxl"))
_RAW = "3fr arw cr2 cr3 dng erf iiq nef nrw orf pef raf raw rw2 sr2 srf srw x3f"
_UNREAD = {
    **dict.fromkeys((f".{end}" for end in _RAW.split()), Reject.RAW),
    **dict.fromkeys((".tga", ".pcx", ".sgi", ".rgb", ".ras", ".ico"), Reject.UNUSUAL),
    **dict.fromkeys((".exr", ".hdr", ".pfm"), Reject.HDR),
    **dict.fromkeys((".dcm", ".dicom", ".ima"), Reject.DICOM),
    **dict.fromkeys((".psd", ".psb", ".xcf", ".kra"), Reject.LAYERED),
}
# suffixes of images that are never read, and left out under reasons that say what helps
UNREAD_SUFFIXES = frozenset(_UNREAD)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_JPEG_XL_STARTS = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")


def reason_without_image(suffix: str) -> Reject:
    """Why a file that no reader takes for an image is left out.

    Args:
        suffix: of its name, in lower case.

    Returns:
        The reason of an image of a kind that is never read, which says what to do; of any other
        file, that it is another file.
    """
    return _UNREAD.get(suffix, Reject.OTHER_FILE)


def refuse_unread(suffix: str) -> None:
    """Refuse a file of a kind that is never read.

    Args:
        suffix: of its name, in lower case.

    Raises:
        RejectError: It is of such a kind; the reason says what to do.
    """
    reason = _UNREAD.get(suffix)
    if reason is not None:
        raise RejectError(reason)


def companions(names: Iterable[str], suffixes: Iterable[str]) -> set[str]:
    """Files that lie beside a readable picture of the same name, as a camera's raw files do.

    Args:
        names: all images of a folder and those below it.
        suffixes: those of readable images.

    Returns:
        The names of unread kinds for which there is a readable one; they are no lost images.
    """
    readable = frozenset(suffixes)
    stems = set[str]()
    unread = list[str]()
    for name in names:
        stem, _, ending = name.rpartition(".")
        if f".{ending.lower()}" in readable:
            stems.add(stem)
        elif f".{ending.lower()}" in UNREAD_SUFFIXES:
            unread.append(name)
    return {name for name in unread if name.rpartition(".")[0] in stems}


def plugin_format(data: bytes) -> str | None:
    """Pillow's name of the format of a file that only a plugin reads.

    Args:
        data: an image file.

    Returns:
        The name, once the plugin is there, or None of a file of any other kind.

    Raises:
        RejectError: The plugin is not installed; the reason says how it is.
    """
    plugin = _plugin_of(data)
    if plugin is None:
        return None
    if plugin.format not in Image.OPEN:
        try:
            module = importlib.import_module(plugin.module)
        except ImportError:
            raise RejectError(plugin.reason, f"no package {plugin.module}", data) from None
        if plugin.register:
            getattr(module, plugin.register)()
    return plugin.format


def _plugin_of(data: bytes) -> _Plugin | None:
    """The plugin for a file, by its first bytes."""
    if data.startswith(_JPEG_XL_STARTS):
        return _JPEG_XL
    if data[4:8] != b"ftyp":
        return None
    if data[8:12] in _HEIF_BRANDS:
        return _HEIF
    # the main brand may be general, and a list of others follow; AVIF is Pillow's own
    length = int.from_bytes(data[:4], "big")
    brands = data[16 : min(length, 128)]
    listed = any(brand in brands for brand in _HEIF_BRANDS)
    is_general = data[8:12] in (b"mif1", b"msf1")
    return _HEIF if is_general and listed and b"avif" not in brands else None
