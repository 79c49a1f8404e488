#!/usr/bin/env bash
# transformers 5.24.0 beside torchvision 0.29.1: the centre of an image is another one for every fourth width or height.
#
# The image processors of transformers compute by torchvision, and a model card that says "resize 256, centre crop 224"
# reads as one preprocessing. One would guess that both cut the same pixels. Where the margin is odd, transformers rounds
# half a pixel down, and torchvision to the even number: 15.5 becomes 15 there and 16 here, 16.5 becomes 16 in both. So a
# picture of 255 pixels is cut one pixel further left than one that torchvision cuts, one of 257 is not. Whoever compares
# features of an exported encoder by both sees differences of per cents for a quarter of the images, and none for a test
# on squares of 256.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.14.1 torchvision==0.29.1 pillow==13.0.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
import numpy as np
import torchvision
import transformers
from PIL import Image
from torchvision.transforms import functional
from transformers import BitImageProcessor

print("transformers", transformers.__version__, "torchvision", torchvision.__version__)
processor = BitImageProcessor(
    do_resize=False,
    do_center_crop=True,
    crop_size={"height": 224, "width": 224},
    do_rescale=False,
    do_normalize=False,
)
corners = {}
for width in (253, 254, 255, 256, 257, 258, 259):
    columns = np.broadcast_to(np.arange(width, dtype=np.uint16)[None, :, None], (256, width, 3))
    image = Image.fromarray(columns.astype(np.uint8))  # a pixel says in which column it is
    here = int(np.asarray(functional.center_crop(image, [224, 224]))[0, 0, 0])
    there = int(np.asarray(processor(image, return_tensors="np")["pixel_values"])[0, 0, 0, 0])
    corners[width] = (here, there)
    print(f"width {width}: torchvision begins at column {here}, transformers at {there}")
assert corners[255] == (16, 15) and corners[259] == (18, 17)
assert all(corners[width][0] == corners[width][1] for width in (253, 254, 256, 257, 258))
PYTHON
