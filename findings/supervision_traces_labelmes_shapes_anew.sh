#!/usr/bin/env bash
# supervision 0.31.2: a shape of LabelMe that is written as COCO is not the one that was drawn.
#
# Reading turns shapes into masks of whole pixels, and writing traces these: a rectangle of 20 × 15 px gets an area of
# 336 instead of 300, a triangle of 200 px² one of 231 and another order of its corners. The box stays. One would guess
# that a conversion between two formats of polygons copies the points. It matters for COCO's split into small, medium
# and large objects, which goes by that area, and for anybody who converts a set back and forth.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet supervision==0.31.2 pillow==13.0.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import json
from importlib.metadata import version
from pathlib import Path
import supervision
from PIL import Image

print("supervision", version("supervision"))
shapes = [
    {"label": "thing", "shape_type": "rectangle", "points": [[10, 8], [30, 23]]},
    {"label": "thing", "shape_type": "polygon", "points": [[40, 10], [60, 10], [60, 30]]},
]
drawn = {"imagePath": "a.png", "imageData": None, "imageHeight": 48, "imageWidth": 64}
Path("labelme").mkdir()
Image.new("RGB", (64, 48)).save("labelme/a.png")
Path("labelme/a.json").write_text(json.dumps(drawn | {"version": "5.0.1", "flags": {}, "shapes": shapes}))
data = supervision.DetectionDataset.from_labelme("labelme", "labelme")
data.as_coco(annotations_path="coco.json")
written = json.loads(Path("coco.json").read_text())["annotations"]
for annotation, area in zip(written, (300, 200), strict=True):
    print("area", annotation["area"], "of", area, "box", annotation["bbox"], annotation["segmentation"])
assert [annotation["area"] for annotation in written] == [336, 231]
assert [annotation["bbox"] for annotation in written] == [[10, 8, 20, 15], [40, 10, 20, 20]]
PYTHON
