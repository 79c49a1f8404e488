#!/usr/bin/env bash
# torchvision 0.29.1, RandomResizedCrop as self-supervised methods use it: of long images it is not random.
#
# A crop has 20 to 100 % of the image's area and sides of 3:4 to 4:3. In an image that is long, most such crops are higher
# than the image; after ten tries the transform gives up and takes the centre, always the same piece. Of the draws that are
# 15 % at sides of 3:1, 49 % at 4:1, 98 % at 6:1, and from 20/3 on all, as no crop fits: of a panorama of 10:1 every "random"
# view is the same 13 % of its pixels. Nothing is told. The smaller scale of multi-crop (5 to 14 %) does not have it.
# One would guess that a random crop is random and that, over the epochs, all of an image is seen. It matters wherever
# images are strips (line cameras, panoramas, cores, documents): two views of one image become equal but for their colours,
# which is the task made trivial, and most pixels are never trained on. Images are to be cut into pieces before.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from collections import Counter
from importlib.metadata import version
import torch
from torchvision.transforms import RandomResizedCrop

print("torchvision", version("torchvision"))
HEIGHT, DRAWS = 300, 2000


def most_frequent(times, scale):
    """The crop that is drawn most often of an image so many times as long as high, and how often."""
    torch.manual_seed(0)
    image = torch.empty(3, HEIGHT, round(times * HEIGHT))
    crops = Counter()
    for _ in range(DRAWS):
        crops[RandomResizedCrop.get_params(image, scale, (3 / 4, 4 / 3))] += 1
    ((top, left, height, width), count) = crops.most_common(1)[0]
    return count / DRAWS, (top, left, height, width), height * width / image[0].numel()


for times, at_least, at_most in (
    (1, 0, 0.02),
    (2, 0, 0.05),
    (3, 0.13, 0.23),
    (4, 0.40, 0.52),
    (6, 0.92, 0.98),
    (6.7, 1, 1),
    (10, 1, 1),
):
    share, crop, area = most_frequent(times, (0.2, 1.0))
    print(f"{times}:1  most frequent crop {crop}, {area:.0%} of the image: {share:.1%} of the draws")
    assert at_least <= share <= at_most
    if times >= 3:
        top, left, height, width = crop
        assert abs(2 * left + width - round(times * HEIGHT)) <= 1  # it is the centre
share, _, _ = most_frequent(10, (0.05, 0.14))
print(f"10:1, crops of 5 to 14 %: {share:.1%}")
assert share < 1
PYTHON
