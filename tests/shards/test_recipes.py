"""The recipes of docs/data.md, each run as it is on data of its kind."""

import hashlib
import json
import pickle
import re
import warnings
from pathlib import Path
import numpy as np
import pytest
from made_images import encoded, populate
from PIL import Image
import shards
from shards import boxes

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
RECIPES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def run_recipe(mark):
    """Run the one recipe that has a mark, in the working directory."""
    (recipe,) = [block for block in RECIPES if mark in block]
    exec(compile(recipe, f"recipe of {mark}", "exec"), {})


def pixels_and_classes(folder):
    """The pixels of a set by key, and the names of their classes."""
    data = shards.open(folder)
    names = {-1: None, **dict(enumerate(data.index.classes))}
    return {
        sample.key: (np.asarray(shards.decode(sample.data)), names[sample.label]) for sample in data
    }


def assert_pixels(folder, classes):
    """A set has the first of ``PIXELS`` with these classes, by their numbers as keys."""
    built = pixels_and_classes(folder)
    assert sorted(built, key=int) == [str(number) for number in range(len(classes))]
    for number, name in enumerate(classes):
        assert np.array_equal(built[str(number)][0], PIXELS[number])
        assert built[str(number)][1] == name


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_torchvision_reads_the_pickles_of_cifar(here, monkeypatch):
    cifar = pytest.importorskip("torchvision.datasets").CIFAR10
    folder = here / "data" / cifar.base_folder
    folder.mkdir(parents=True)
    rows = PIXELS.transpose(0, 3, 1, 2).reshape(6, -1)

    def dump(name, value):
        data = pickle.dumps(value)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    batches = []
    for number in range(2):
        part = slice(3 * number, 3 * number + 3)
        content = {"data": rows[part], "labels": [0, 2, 1]}
        batches.append([f"data_batch_{number + 1}", dump(f"data_batch_{number + 1}", content)])
    names = {"label_names": ["airplane", "automobile", "bird"]}
    # torchvision compares checksums, here those of these six images
    monkeypatch.setattr(cifar, "train_list", batches)
    monkeypatch.setattr(cifar, "test_list", [])
    meta = cifar.meta | {"md5": dump(cifar.meta["filename"], names)}
    monkeypatch.setattr(cifar, "meta", meta)
    run_recipe("CIFAR10")
    assert_pixels("sets/train", ["airplane", "bird", "automobile"] * 2)


def test_torchvision_lists_the_files_of_an_image_folder(here):
    pytest.importorskip("torchvision")
    populate(here / "photos", ["cat/1.jpg", "cat/2.png", "dog/1.jpg"])
    run_recipe("ImageFolder")
    built = shards.open("sets/photos")
    wanted = shards.build("photos", "wanted")
    assert built.index.shards == wanted.shards
    assert built.index.classes == ("cat", "dog")


@pytest.mark.parametrize("channels", [1, 3])
def test_medmnist(here, channels):
    images = PIXELS if channels == 3 else PIXELS[..., 0]
    labels = np.array([[3], [0], [1], [3], [10], [2]], np.uint8)
    np.savez(here / "pathmnist.npz", train_images=images, train_labels=labels)
    run_recipe("pathmnist")
    built = pixels_and_classes("sets/train")
    for number, label in enumerate(labels[:, 0]):
        pixels, name = built[str(number)]
        assert np.array_equal(pixels[..., 0], PIXELS[number, ..., 0])
        assert name == str(label)
    assert shards.open("sets/train").index.classes == ("0", "1", "2", "3", "10")


def test_hugging_face_datasets(here, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="pip install 'care-ssl[datasets]'")
    files = [encoded(Image.fromarray(pixels)) for pixels in PIXELS]
    (here / "5.png").write_bytes(files[5])
    images = [{"bytes": data, "path": None} for data in files[:5]]
    images.append({"bytes": None, "path": "5.png"})
    features = datasets.Features(
        image=datasets.Image(), labels=datasets.ClassLabel(names=["bean rust", "healthy"])
    )
    content = {"image": images, "labels": [0, 1, -1, 0, 1, 0]}
    data = datasets.Dataset.from_dict(content, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: data)
    run_recipe("load_dataset")
    names = ["bean rust", "healthy", None, "bean rust", "healthy", "bean rust"]
    assert_pixels("sets/train", names)


# boxes


@pytest.fixture
def supervision():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses OpenCV
        return pytest.importorskip("supervision", reason="pip install 'care-ssl[supervision]'")


def boxes_of(folder):
    """Rounded boxes with classes of a built set, by the name of the image."""
    data = boxes.load(folder)
    return {
        picture.path.name: sorted(
            (data.classes[label], *map(round, box))
            for label, box in zip(picture.labels, picture.boxes.tolist(), strict=True)
        )
        for picture in data.pictures
    }


def test_yolo(here, supervision):
    populate(here / "images" / "train", [f"{number}.png" for number in range(3)])
    populate(here / "images" / "train", ["3.gif"])
    labels = here / "labels" / "train"
    labels.mkdir(parents=True)
    # the images are 20 x 16 px; the third has no file of labels, the fourth is left out by YOLO
    (labels / "0.txt").write_text("1 0.5 0.5 0.5 0.5\n0 0.25 0.25 0.5 0.5\n")
    (labels / "1.txt").write_text("")
    (here / "data.yaml").write_text("train: images/train\nnames:\n  0: cat\n  1: dog\n")
    run_recipe("from_yolo")
    wanted = [("cat", 0, 0, 10, 8), ("dog", 5, 4, 15, 12)]
    assert boxes_of("sets/train") == {"0.png": wanted, "1.png": [], "2.png": []}
    assert len(shards.open("sets/train").keys) == 4


def test_labelme(here, supervision):
    populate(here / "photos", ["0.png", "1.png"])
    shapes = [
        ("dog", "rectangle", [[5, 4], [15, 12]]),
        ("cat", "polygon", [[2, 2], [12, 2], [7, 10]]),
    ]
    document = {
        "version": "5.4.1",
        "flags": {},
        "shapes": [
            {"label": label, "shape_type": kind, "points": points, "group_id": None, "flags": {}}
            for label, kind, points in shapes
        ],
        "imagePath": "0.png",
        "imageData": None,
        "imageHeight": 16,
        "imageWidth": 20,
    }
    (here / "photos" / "0.json").write_text(json.dumps(document))
    run_recipe("from_labelme")
    wanted = [("cat", 2, 2, 12, 10), ("dog", 5, 4, 15, 12)]
    assert boxes_of("sets/train") == {"0.png": wanted}
    assert len(shards.open("sets/train").keys) == 2


@pytest.mark.parametrize("project", [False, True], ids=["exported", "project"])
def test_via(here, project):
    populate(here / "photos", ["0.png", "1.png"])

    def region(name, **shape):
        attributes = {"type": "dog" if name == "rect" else "cat"}
        return {"shape_attributes": {"name": name, **shape}, "region_attributes": attributes}

    regions = [
        region("rect", x=5, y=4, width=10, height=8),
        region("polygon", all_points_x=[2, 12, 7], all_points_y=[2, 2, 10]),
        region("circle", cx=5, cy=5, r=3),
    ]
    files = {
        "0.png1": {"filename": "0.png", "size": 1, "regions": regions, "file_attributes": {}},
        "1.png1": {"filename": "1.png", "size": 1, "regions": [], "file_attributes": {}},
    }
    document = {"_via_img_metadata": files, "_via_settings": {}} if project else files
    (here / "photos" / "via_region_data.json").write_text(json.dumps(document))
    run_recipe("via_region_data")
    wanted = [("cat", 2, 2, 12, 10), ("dog", 5, 4, 15, 12)]
    assert boxes_of("sets/train") == {"0.png": wanted, "1.png": []}
    assert boxes.load("sets/train").rejects["object without a box"] == [
        "0.png: cat [nan, nan, nan, nan]"
    ]


def test_strips_are_cut_into_pieces(here):
    strip = np.concatenate(PIXELS[:3], axis=1)
    (here / "strips" / "rust").mkdir(parents=True)
    Image.fromarray(strip).save(here / "strips" / "rust" / "1.jpg", quality=100)
    run_recipe("strips")
    built = pixels_and_classes("sets/pieces")
    assert sorted(built) == ["rust/1/0-0", "rust/1/32-0", "rust/1/64-0"]
    for number, key in enumerate(sorted(built)):
        pixels, name = built[key]
        assert name == "rust"
        assert pixels.shape == (32, 32, 3)
        seen = np.asarray(Image.open(here / "strips" / "rust" / "1.jpg"))
        assert np.array_equal(pixels, seen[:, 32 * number : 32 * (number + 1)])
