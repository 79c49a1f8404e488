#!/usr/bin/env bash
# Pillow 13.0.0: a JPEG 2000 of 12 or 16 bits opens whole if it is gray, and cut to 8 bits if it is in colour.
#
# Satellite and microscope images come as JPEG 2000 of 12 or 16 bits. A gray one opens as I;16 with all of its bits. One
# would guess that one in colour is refused, or opens in a mode that says so. It opens as plain RGB: the upper eight
# bits, so that 12-bit values of a dark scene in 16-bit files end near 0, and nothing in mode, info or warnings tells.
# It matters to whoever trains on such files: only the SIZ marker of the file itself has the depth.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 imagecodecs==2026.3.6 numpy==2.4.6
"$folder/venv/bin/python" -W error - <<'PYTHON'
import io
from importlib.metadata import version
import imagecodecs
import numpy
from PIL import Image

print("Pillow", version("pillow"), "imagecodecs", version("imagecodecs"))
values = numpy.linspace(0, 4095, 64 * 64).astype(numpy.uint16).reshape(64, 64)
modes = {}
for name, array in (("gray", values), ("colour", numpy.dstack([values] * 3))):
    data = imagecodecs.jpeg2k_encode(array, level=0, reversible=True)
    assert (imagecodecs.jpeg2k_decode(data) == array).all()  # the file has all bits
    picture = Image.open(io.BytesIO(data))
    pixels = numpy.asarray(picture)
    modes[name] = picture.mode, int(pixels.max()), len(numpy.unique(pixels))
    print(f"{name}: mode {picture.mode}, largest value {pixels.max()} of 4095, {modes[name][2]} values, info {dict(picture.info)}")
assert modes["gray"][:2] == ("I;16", 4095)
assert modes["colour"][:2] == ("RGB", 16)
PYTHON
