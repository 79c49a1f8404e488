#!/usr/bin/env bash
# Pillow 13.0.0: three kinds of deep TIFF open without an error, with other numbers than they hold.
#
# - RGB of 16 bits in separate planes (PlanarConfiguration 2, as many scientific writers and GDAL leave it): mode "RGB",
#   and the bytes of the words are taken for pixels one after the other; interleaved planes are read right.
# - signed 8 bits: mode "L", so that -5 is 251.
# - unsigned 32 bits: mode "I", which is signed, so that 3,000,000,000 is -1,294,967,296.
# One would guess that a decoder refuses what its modes cannot hold, as it refuses many other TIFFs. It matters to
# whoever trains on microscopy or satellite images: nothing fails, and the network sees noise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version
import numpy as np
import tifffile
from PIL import Image

print("Pillow", version("pillow"))
planes = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5) * 1000
high_bytes = (planes >> 8).astype(np.uint8).transpose(1, 2, 0)
tifffile.imwrite("interleaved.tif", planes.transpose(1, 2, 0), photometric="rgb")
tifffile.imwrite("planes.tif", planes, photometric="rgb", planarconfig="separate")
assert (np.asarray(Image.open("interleaved.tif")) == high_bytes).all()
with Image.open("planes.tif") as image:
    read = np.asarray(image)
    print("planes:", image.mode, read[0, :, 0].tolist(), "of", planes[0, 0].tolist())
    assert image.mode == "RGB"
assert read[0, :, 0].tolist() == [*planes[0].tobytes()[:5]]

for values in (np.array([[-5, 5]], np.int8), np.array([[1, 3_000_000_000]], np.uint32)):
    tifffile.imwrite("gray.tif", values)
    with Image.open("gray.tif") as image:
        print(values.dtype, values.tolist(), "is read as", image.mode, np.asarray(image).tolist())
        wrong = [251, 5] if values.dtype == np.int8 else [1, -1_294_967_296]
        assert np.asarray(image).tolist() == [wrong]
PYTHON
