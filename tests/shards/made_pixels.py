"""Image files of more than 8 bits and of other bands, which Pillow does not write."""

import struct
import zlib
import numpy as np

_SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}


def png(values):
    """A PNG of 16 bits: gray, gray and alpha, RGB or RGBA [height, width, 1…4]."""
    height, width, bands = values.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[bands]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">2I5B", width, height, 16, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind, content):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def tiff(values, *, alpha=False, separate=False, photometric=None, no_data=None):
    """An uncompressed TIFF of values [height, width, bands] of any type."""
    height, width, bands = values.shape
    bits = values.dtype.itemsize * 8
    if separate:
        values = np.moveaxis(values, 2, 0)
    pixels = np.ascontiguousarray(values).tobytes()
    if photometric is None:
        photometric = 2 if bands in (3, 4) else 1
    strips = bands if separate else 1
    tags = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits] * bands),
        259: ("H", [1]),
        262: ("H", [photometric]),
        273: ("I", [0] * strips),
        277: ("H", [bands]),
        278: ("I", [height]),
        279: ("I", [len(pixels) // strips] * strips),
        284: ("H", [2 if separate else 1]),
        339: ("H", [_SAMPLE_FORMATS[values.dtype.kind]] * bands),
    }
    if bands > 3 or alpha:
        extra = bands - (3 if photometric == 2 else 1)
        tags[338] = ("H", [2 if alpha else 0] * extra)
    if no_data is not None:
        tags[42113] = ("B", [*no_data.encode(), 0])
    start = 8 + 2 + 12 * len(tags) + 4
    extra_bytes = b""
    sizes = [len(pixels) // strips] * strips
    # where the pixels begin depends on the values that do not fit into their entries
    outside = [struct.calcsize(f"<{len(of_tag)}{kind}") for kind, of_tag in tags.values()]
    first = start + sum(size for size in outside if size > 4)
    tags[273] = ("I", [first + sum(sizes[:number]) for number in range(strips)])
    entries = b""
    for tag, (kind, of_tag) in sorted(tags.items()):
        packed = struct.pack(f"<{len(of_tag)}{kind}", *of_tag)
        code = {"B": 2, "H": 3, "I": 4}[kind]
        if len(packed) > 4:
            place = struct.pack("<I", start + len(extra_bytes))
            extra_bytes += packed
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, code, len(of_tag)) + place
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8) + directory + extra_bytes + pixels


def ppm(values, largest=65535):
    """A binary PPM of 16 bits [height, width, 3]."""
    height, width, _ = values.shape
    return b"P6 %d %d %d\n" % (width, height, largest) + values.astype(">u2").tobytes()
