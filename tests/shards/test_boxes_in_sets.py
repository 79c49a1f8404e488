"""A shard set that was built of an annotated list gives the same boxes as the list."""

import itertools
import json
import math
import multiprocessing
import pickle
import numpy as np
import pytest
from made_images import image_bytes, populate
from made_lists import (
    BOX,
    COCOS_LAYOUT,
    HEIGHT,
    MASKS,
    WIDTH,
    coco,
    counted,
    masked,
    rejected,
    voc,
)
from pycocotools.coco import COCO
import shards
from shards import Reject, ShardError
from shards.boxes import load

ODD_THINGS = [
    ("eel", BOX),
    ("cat", (9, 9, 3, 12)),
    ("dog", (25, 3, 29, 8)),
    ("cat", (-4, 2, 30, 5), True),
    ("dog", (2.5, 3, 9.25, 8)),
]


@pytest.fixture(params=[coco, voc])
def write(request):
    return request.param


def assert_same(first, second):
    """Everything but where the images are, and their pixels."""
    for name in ("classes", "voc", "digest", "rejects"):
        assert getattr(first, name) == getattr(second, name)
    assert len(first.pictures) == len(second.pictures)
    for number, (a, b) in enumerate(zip(first.pictures, second.pictures, strict=True)):
        assert (a.path.name, a.size, a.masks) == (b.path.name, b.size, b.masks)
        for x, y in zip(a[2:6], b[2:6], strict=True):
            assert x.dtype == y.dtype
            assert np.array_equal(x, y)
        assert np.array_equal(np.asarray(first.image(number)), np.asarray(second.image(number)))


@pytest.mark.parametrize("kind", ["path", "URL"])
def test_a_shard_set_gives_the_same(tmp_path, write, kind, monkeypatch):
    monkeypatch.setenv("CARE_CACHE", str(tmp_path / "cache"))
    things = {
        "b": ODD_THINGS,
        "a.b": [],
        "c": [("cat", BOX), ("dog", BOX, True)],
        "gone": [("cat", BOX)],
        **{f"{n}": ODD_THINGS[:n] for n in range(5)},
    }
    path = write(tmp_path / "data", things)
    dest = str(tmp_path / "set") if kind == "path" else f"file://{tmp_path}/set"
    next(tmp_path.rglob("gone.jpg")).unlink()
    (tmp_path / "set" / ".lease").mkdir(parents=True)  # a store of URLs makes no folders
    shards.build(path, dest, shard_size=3, max_rejects=0.2)
    box_set = load(dest)
    assert_same(box_set, load(path))
    order_of_set = [f"{key}.jpg" for key in shards.open(dest).keys]
    assert [picture.path.name for picture in box_set.pictures] != order_of_set  # which is drawn
    assert len(box_set.rejects) == (4 if write is coco else 3)  # VOC's eels are a class
    assert str(box_set.path).endswith("set")
    for classes in (["dog"], ["eel", "cat", "dog"]):
        assert_same(load(dest, classes=classes), load(path, classes=classes))
    assert shards.verify(dest) == []


def odd_coco(folder):
    """Categories that are not listed, boxes of no image or without numbers, a file listed twice."""
    path = masked(folder, info={"year": 2017})
    names = ((10, "x/a.jpg"), ("s", "y/a.jpg"), (3, "x/a.jpg"))
    things = [
        (10, 99, BOX),
        (55, 7, BOX),
        (3, 3, (1, 1, 5, 5)),
        ("s", 7, [math.nan, 1, 2, 3]),
        ("s", 7, [1, 2]),
        ("s", 7, None),
    ]
    document = json.loads(path.read_text())
    document["images"] = [
        {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
        for number, name in names
    ]
    for number, (image, category, box) in enumerate(things, 100):
        annotation = {"id": number, "image_id": image, "category_id": category, "bbox": box}
        document["annotations"].append(annotation)
    path.write_text(json.dumps(document))
    populate(path.parent, ["x/a.jpg", "y/a.jpg"])
    return path


def test_cocos_oddities_survive_in_a_set(tmp_path):
    path = odd_coco(tmp_path / "data")
    shards.build(path, tmp_path / "set", max_rejects=0.5)
    box_set = load(tmp_path / "set")
    assert_same(box_set, load(path))
    assert [len(picture.boxes) for picture in box_set.pictures] == [len(MASKS) + 1, 0, 1]
    assert rejected(box_set) == {
        Reject.UNKNOWN_IMAGE: 1,
        Reject.UNKNOWN_CATEGORY: 1,
        Reject.NO_BOX: 3,
        Reject.BAD_MASK: 4,
    }
    document = json.loads((tmp_path / "set" / "annotations.json").read_text())
    assert document["info"] == {"year": 2017}
    names = [(image["key"], image["file_name"]) for image in document["images"]]
    assert names == [("x/a", "x/a.jpg"), ("y/a", "y/a.jpg"), ("x/a", "x/a.jpg")]


def stems(box_set):
    return {picture.path.stem for picture in box_set.pictures}


def test_images_that_a_build_leaves_out_are_listed_and_those_of_another_share_are_not(
    tmp_path, write
):
    things = {f"{n}": [("cat", BOX)] for n in range(12)}
    path = write(tmp_path / "data", things)
    cut_off = image_bytes(file_format="JPEG")[:300]
    next(tmp_path.rglob("7.jpg")).write_bytes(cut_off)
    index = shards.build(path, tmp_path / "set", max_rejects=0.1)
    assert index.rejects == {"corrupt image": ["7.jpg"]}
    box_set = load(tmp_path / "set")
    assert box_set.rejects == {Reject.NO_IMAGE: ["7.jpg"]}
    listed_names = [picture.path.name for picture in load(path).pictures]
    names = [picture.path.name for picture in box_set.pictures]
    assert names == [name for name in listed_names if name != "7.jpg"]
    parts = []
    for share in ((0, 0.5), (0.5, 1)):
        shards.build(path, tmp_path / f"{share}", share=share, max_rejects=0.5)
        parts.append(load(tmp_path / f"{share}"))
    first, second = map(stems, parts)
    assert first
    assert second
    assert (first | second, first & second) == ({*things} - {"7"}, set())
    assert sum(len(part.rejects) for part in parts) == 1
    assert sum(map(counted, parts)) == 11


def image_of(box_set, number):
    return box_set.image(number).tobytes()


def test_a_box_set_can_be_pickled_and_forked(tmp_path, write):
    path = write(tmp_path / "data", {f"{n}": [("cat", BOX)] for n in range(6)})
    shards.build(path, tmp_path / "set", shard_size=4)
    files = load(path)
    images = [image_of(files, n) for n in range(6)]
    for box_set in (files, load(tmp_path / "set")):
        copy = pickle.loads(pickle.dumps(box_set))
        assert [image_of(copy, n) for n in range(6)] == images
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.starmap(image_of, [(box_set, n) for n in range(6)]) == images


def test_an_annotated_set_that_is_damaged_or_has_no_boxes_is_told(tmp_path, photos):
    shards.build(coco(tmp_path / "data", {"a": [("cat", BOX)]}), tmp_path / "set")
    file = tmp_path / "set" / "annotations.json"
    text = file.read_text()
    file.write_text(text.replace("cat", "cow"))
    damage = "annotations.json is not the file that was written"
    with pytest.raises(ShardError, match=f"{damage}; copy the set again"):
        load(tmp_path / "set")
    assert damage in shards.verify(tmp_path / "set")[0]
    file.write_text(text)
    assert load(tmp_path / "set").image(0).size == (WIDTH, HEIGHT)
    file.unlink()
    assert "annotations.json" in shards.verify(tmp_path / "set")[0]
    shards.build(photos, tmp_path / "plain")
    message = r"wanted a COCO JSON or a VOC list .*, or shards of one; there is a folder, but no"
    for name in ("set", "plain"):
        with pytest.raises(ShardError, match=message):
            load(tmp_path / name)


def test_a_set_of_another_annotated_size_or_with_damaged_shards_names_the_image(tmp_path):
    path = coco(tmp_path / "data", {"a": [], "b": []})
    shards.build(path, tmp_path / "set")
    box_set = load(tmp_path / "set")
    box_set.pictures[0] = box_set.pictures[0]._replace(size=(21, 16))
    message = r"set/a\.jpg has 20 × 16 pixels, its annotation says 21 × 16"
    with pytest.raises(ShardError, match=message):
        box_set.image(0)
    assert box_set.image(1).size == (WIDTH, HEIGHT)
    tar = tmp_path / "set" / "shard-000000.tar"
    tar.write_bytes(bytes(tar.stat().st_size))
    message = r"cannot read .*set/b\.jpg: sample \d \('b'\) of .* is damaged"
    with pytest.raises(ShardError, match=message):
        box_set.image(1)


@pytest.mark.parametrize(
    ("tar", "inside"),
    [("bccd.tar", "BCCD/ImageSets/Main/test.txt"), ("coco-mini-permissive.tar", COCOS_LAYOUT[0])],
)
def test_real_sets_in_shards(unpacked, tmp_path, tar, inside):
    (path,) = unpacked(tar).rglob(inside)
    shards.build(path, tmp_path / "set")
    box_set = load(tmp_path / "set")
    assert_same(box_set, load(path))
    if not box_set.voc:
        document = json.loads(path.read_text())
        masks = {image["id"]: [] for image in document["images"]}
        for annotation in document["annotations"]:
            masks[annotation["image_id"]].append(annotation["segmentation"])
        assert [picture.masks for picture in box_set.pictures] == list(masks.values())
        all_masks = itertools.chain.from_iterable(masks.values())
        assert any(isinstance(mask, dict) for mask in all_masks)
    # the file is in COCO's own format, VOC's too
    reference = COCO(tmp_path / "set" / "annotations.json")
    kept = sum(len(picture.boxes) for picture in box_set.pictures)
    assert len(reference.getAnnIds()) == kept + sum(rejected(box_set).values())
