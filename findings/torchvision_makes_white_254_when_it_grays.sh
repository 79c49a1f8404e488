#!/usr/bin/env bash
# torchvision 0.29.1: a white image of bytes becomes 254 when tensors are made gray, and 255 when pictures are.
#
# The weights that torchvision multiplies red, green and blue by, 0.2989, 0.587 and 0.114, have the sum 0.9999, and what
# comes out is cut to a byte, not rounded: every gray but black comes out darker by one level, white as 254. Saturation 0 and contrast 0
# go the same way. Pillow, behind the same function for pictures, has weights of sum 1 and gives 255. In floats 1 becomes
# 0.9999. One would guess that gray stays gray, and that the two inputs of one transform give equal views.
# It matters to self-supervised views: a fifth of them is made gray, all at once darker than the others, a cue that no
# augmentation should leave; and tests of tensor transforms beside those of pictures need a tolerance of 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 numpy==2.4.6 pillow==13.0.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version
import numpy
import torch
from PIL import Image
from torchvision.transforms import functional as old
from torchvision.transforms.v2 import functional as new

print("torchvision", version("torchvision"))
levels = torch.arange(256, dtype=torch.uint8)
grays = levels.expand(3, 1, 256)
picture = Image.fromarray(numpy.repeat(levels.numpy()[None, :, None], 3, axis=2))
by_pillow = torch.from_numpy(numpy.array(new.rgb_to_grayscale(picture))).flatten()
assert torch.equal(by_pillow, levels)
for name, changed in (
    ("v2 rgb_to_grayscale", new.rgb_to_grayscale(grays)),
    ("v1 rgb_to_grayscale", old.rgb_to_grayscale(grays)),
    ("v2 adjust_saturation 0", new.adjust_saturation(grays, 0.0)[:1]),
):
    darker = (levels - changed.flatten()).tolist()
    print(name, "of 255:", int(changed.flatten()[-1]), "levels that are darker by 1:", sum(darker))
    assert set(darker) <= {0, 1}
    assert int(changed.flatten()[-1]) == 254
    assert sum(darker) == 255
white = new.rgb_to_grayscale(torch.ones(3, 1, 1)).item()
print("white of floats:", white)
assert 0.99989 < white < 0.99991
PYTHON
