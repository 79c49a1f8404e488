#!/usr/bin/env bash
# supervision 0.31.2 beside pycocotools 2.0.11: masks of the same COCO polygon differ by a rim of one pixel.
#
# COCO's polygons go through corners of pixels: the square (0, 0) to (10, 10) has area 100, and pycocotools gives a mask of
# 100 pixels. supervision's from_coco(force_masks=True) fills the polygon with both ends, 11 × 11 = 121 pixels; a square of
# one pixel becomes four. as_coco then writes a larger area than was read. The smaller the object the worse: IoU with itself
# is 0.83 of the square of 10, 0.25 of that of 1, so a perfect prediction fails at the higher thresholds.
# One would guess that readers of one format agree about what it says. It matters where sets are converted before
# segmentation is trained or judged: areas (small, medium, large) and mask AP are no longer those of the file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet supervision==0.31.2 pycocotools==2.0.11 pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import contextlib
import io
import json
from importlib.metadata import version
import numpy
import supervision
from PIL import Image
from pycocotools.coco import COCO

print("supervision", version("supervision"), "pycocotools", version("pycocotools"))
SIDES = (1, 10, 40)
Image.new("RGB", (60, 60)).save("a.png")
document = {
    "images": [{"id": 1, "file_name": "a.png", "width": 60, "height": 60}],
    "categories": [{"id": 1, "name": "square"}],
    "annotations": [
        {
            "id": number,
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [5, 5, side, side],
            "area": side * side,
            "segmentation": [[5, 5, 5 + side, 5, 5 + side, 5 + side, 5, 5 + side]],
        }
        for number, side in enumerate(SIDES, 1)
    ],
}
with open("a.json", "w") as file:
    json.dump(document, file)
with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO("a.json")
by_coco = [coco.annToMask(coco.anns[number + 1]).astype(bool) for number in range(len(SIDES))]
dataset = supervision.DetectionDataset.from_coco(".", "a.json", force_masks=True)
((_, _, detections),) = list(dataset)
for side, mask, other in zip(SIDES, by_coco, detections.mask, strict=True):
    union = numpy.logical_or(mask, other).sum()
    overlap = numpy.logical_and(mask, other).sum() / union
    print(f"square of {side}: {mask.sum()} and {other.sum()} pixels, IoU {overlap:.2f}")
    assert (mask.sum(), other.sum()) == (side**2, (side + 1) ** 2)
PYTHON
