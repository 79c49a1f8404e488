"""JPEGs without their pixels, which decode if they do: what a check of an image has to decode.

Most of the time that a JPEG takes goes into its entropy-coded pixels. Whatever these bytes are, a
decoder makes a picture of them: libjpeg warns of damaged ones and goes on, and Pillow does not
listen. What it refuses is in the headers, or it is that the end is missing.
"""

import re

_START_OF_IMAGE = b"\xff\xd8"
_END_OF_IMAGE = b"\xff\xd9"
_START_OF_SCAN = 0xDA
# frames of 8 bits a channel that are Huffman-coded and not progressive
_SEQUENTIAL_FRAMES = frozenset((0xC0, 0xC1))
# tables, restart intervals, comments and what applications keep
_OTHER_SEGMENTS = frozenset((0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)))
# among pixels: neither an escaped byte, nor a place to start again, nor filling
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def without_pixels(data: bytes) -> bytes:
    """A JPEG of the same headers and no pixels, of which libjpeg says what it says of ``data``.

    That is so where all pixels are in one sequential scan, behind which the image ends: the first
    marker in them is that end, so a decoder never runs out of bytes, as it does not here.

    Args:
        data: any bytes.

    Returns:
        The headers and the end, or ``data`` itself where it is another kind of file.
    """
    start = _start_of_pixels(data)
    if start is None:
        return data
    marker = _MARKER.search(data, start)
    if marker is None or marker[0] != _END_OF_IMAGE:
        return data
    return data[:start] + _END_OF_IMAGE


def _start_of_pixels(data: bytes) -> int | None:
    """Where the only scan of a sequential JPEG has its first byte, or None of all other files."""
    if not data.startswith(_START_OF_IMAGE):
        return None
    position = len(_START_OF_IMAGE)
    channels = 0
    while position + 10 <= len(data) and data[position] == 0xFF:
        kind = data[position + 1]
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if length < 2:
            return None
        end = position + 2 + length
        if kind == _START_OF_SCAN:
            has_all = channels > 0 and data[position + 4] == channels
            return end if has_all and end <= len(data) else None
        if kind in _SEQUENTIAL_FRAMES and not channels:
            channels = data[position + 9]
        elif kind not in _OTHER_SEGMENTS:
            return None
        position = end
    return None
