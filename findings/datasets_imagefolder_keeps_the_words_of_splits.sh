#!/usr/bin/env bash
# datasets 5.2.0, imagefolder: one file whose name has the word "test", "train", "dev", … leaves all others out.
#
# Images in class folders, cat/ and dog/, no folder is called train or test. As long as no name has one of the words that
# datasets looks for, all four images are one split, with their two classes. Rename one of them to my_test_shot.jpg and the
# same call gives a split "test" of that one image: the other three are in no split, the classes are gone, and nothing is
# warned of. A class of its own may do it: of car/, ship/ and "bullet train"/ the last is the data set.
# One would guess that a folder gives its images, or that words count where all files have one. It matters here: what lies
# in imagefolder's form is often read by both, and counts that differ are not the shards' fault.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pillow==13.0.0
cd "$folder"
HF_DATASETS_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import shutil
from importlib.metadata import version
from pathlib import Path
import datasets
from PIL import Image

datasets.disable_progress_bars()
print("datasets", version("datasets"))


def splits(*names):
    """How many images each split has, and the classes of those."""
    shutil.rmtree("images", ignore_errors=True)
    for name in names:
        path = Path("images", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((8, 8), 50).convert("RGB").save(path)
    found = datasets.load_dataset("imagefolder", data_dir="images")
    return {
        name: (len(split), split.features["label"].names if "label" in split.features else None)
        for name, split in found.items()
    }


for names, expected in (
    (("cat/a.jpg", "cat/b.jpg", "dog/c.jpg", "dog/d.jpg"), {"train": (4, ["cat", "dog"])}),
    (("cat/a.jpg", "cat/b.jpg", "dog/c.jpg", "dog/my_test_shot.jpg"), {"test": (1, None)}),
    (("cat/a.jpg", "cat/b.jpg", "dog/c.jpg", "dog/dev-1.jpg"), {"validation": (1, None)}),
    (("car/a.jpg", "bullet train/b.jpg", "ship/c.jpg"), {"train": (1, None)}),
):
    seen = splits(*names)
    print(*names, "->", seen)
    assert seen == expected, expected
PYTHON
