#!/usr/bin/env bash
# supervision 0.31.2: DetectionDataset.from_yolo reads the images at the top of a folder, and says nothing of the rest.
#
# Ultralytics, whose layout this is, finds images in subfolders of images/ with labels in the same subfolders of
# labels/; exports of several cameras or days look like that. One would guess that a reader of the layout does the
# same, or names what it leaves out. Of two labelled images, one of them in a subfolder, it gives one, without a word.
# It matters to whoever converts such a set by it: compare the number of images before and after.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet supervision==0.31.2 pillow==13.0.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version
from pathlib import Path
import supervision
from PIL import Image

print("supervision", version("supervision"))
for name in ("first", "monday/second"):
    image, labels = Path("yolo/images", f"{name}.png"), Path("yolo/labels", f"{name}.txt")
    for path in (image, labels):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48)).save(image)
    labels.write_text("0 0.5 0.5 0.5 0.5\n")
Path("yolo/data.yaml").write_text("names: [thing]\n")
data = supervision.DetectionDataset.from_yolo("yolo/images", "yolo/labels", "yolo/data.yaml")
names = [Path(path).name for path in data.image_paths]
print("images:", names, "of first.png and monday/second.png")
assert names == ["first.png"]
PYTHON
