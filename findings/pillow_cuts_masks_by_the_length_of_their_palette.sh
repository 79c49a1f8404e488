#!/usr/bin/env bash
# Pillow 13.0.0: a mask saved as PNG loses values when its palette has sixteen colours or fewer.
#
# Segmentation masks are palette images whose pixels are class numbers, with 255 where nobody says. One would guess that a
# palette only says how numbers are shown, so that naming the colours of three classes leaves the pixels as they are. In
# memory it does. In the PNG the bits a pixel are chosen by the palette's length, and each value keeps its lowest bits
# alone: 255 becomes 1 with two colours, 3 with three or four, 15 with five to sixteen. Nothing is said. "Nobody says"
# becomes a class, in training and in the score. Seventeen colours or 256 keep all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import PIL
from PIL import Image

print("Pillow", PIL.__version__)
classes = np.array([[0, 1, 2, 255]], np.uint8)
saved = {}
for colours in (2, 3, 4, 5, 16, 17, 256):
    mask = Image.frombytes("P", (4, 1), classes.tobytes())
    mask.putpalette([number % 256 for number in range(3 * colours)])
    assert np.array_equal(np.asarray(mask), classes)
    mask.save("mask.png")
    saved[colours] = np.asarray(Image.open("mask.png"))[0].tolist()
    print(f"{colours:3} colours: {classes[0].tolist()} is saved as {saved[colours]}")
assert saved[2] == [0, 1, 1, 1]
assert saved[3] == saved[4] == [0, 1, 2, 3]
assert saved[5] == saved[16] == [0, 1, 2, 15]
assert saved[17] == saved[256] == [0, 1, 2, 255]
PYTHON
