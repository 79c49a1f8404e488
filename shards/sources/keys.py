"""The names of samples in a set: unique, and such that WebDataset and wids read them."""

import hashlib
import os
import re
from collections.abc import Iterable
from shards.images import SUFFIXES
from shards.sources.candidates import Candidate, suffix

# WebDataset ends a key at the first dot of the file name and skips folders named __like_this__; in
# keys.txt a line is a key
_SPECIAL = re.compile(r"^_(?=_)|[%.\x00-\x1f\x7f\udc80-\udcff]")
_HALF_ESCAPE = re.compile(r"%[\dA-F]?$")
# of a member, as they fit into a tar's header
_MAX_NAME_BYTES = 100
# of a key that is made shorter: the longest suffix has five more
_MAX_KEY_BYTES = 90


def unique_keys(images: Iterable[Candidate]) -> list[str]:
    """The names of samples in the set: without its suffix, unless an earlier one took that."""
    keys = dict[str, str]()  # what is written, by what would be if names were of any length
    for image in images:
        key_with_suffix = _SPECIAL.sub(_escape, image.name)
        key = key_with_suffix
        ending = suffix(image.name)
        # img_0.5 has no suffix: a set's members have those of their formats
        if ending in SUFFIXES:
            key = key_with_suffix.rpartition("%2E")[0]
        if key in keys:
            key = key_with_suffix
        keys[key] = _shortened(key, ending)
    return list(keys.values())


def _shortened(key: str, ending: str) -> str:
    """A key whose members have names of at most 100 bytes: wids reads no more of them.

    A digest of the key stands for the end of its folder, or where the file's name is long, for the
    end of that.

    Args:
        key: the key.
        ending: suffix of the image; it may become ``.jpg``, and ``.cls`` is as long.
    """
    if len(os.fsencode(key)) + max(len(ending), len(".cls")) <= _MAX_NAME_BYTES:
        return key
    mark = f"~{hashlib.sha256(os.fsencode(key)).hexdigest()[:16]}"
    folder, _, file = key.rpartition("/")
    room = _MAX_KEY_BYTES - len(os.fsencode(f"{mark}/{file}"))
    if not folder or room < 1:
        return _cut(key, _MAX_KEY_BYTES - len(mark)) + mark
    return f"{_cut(folder, room)}{mark}/{file}"


def _cut(text: str, size: int) -> str:
    """The first bytes of a text, without a half of a character or of an escape at their end."""
    head = os.fsencode(text)[:size].decode(errors="ignore")
    return _HALF_ESCAPE.sub("", head)


def _escape(special: re.Match[str]) -> str:
    """A character that no key may have, as in a URL."""
    return f"%{os.fsencode(special[0])[0]:02X}"
