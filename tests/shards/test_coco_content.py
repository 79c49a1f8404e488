"""What tools write into COCO documents: nothing is lost or merged without a reason and a name."""

import json
import numpy as np
import pytest
from made_images import populate
from made_lists import HEIGHT, WIDTH, counted, rejected
from pycocotools import mask as coco_masks
import shards
from shards import Reject, ShardError
from shards.boxes import load
from shards.sources.masks import box_around, usable_mask

COUNT = 4
SQUARE = [2, 3, 9, 3, 9, 8, 2, 8]
WIDE = [10, 2, 18, 2, 18, 12, 10, 12]


def document():
    """Four images with two objects each, boxes and masks alike."""
    images = [
        {"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT}
        for number in range(COUNT)
    ]
    annotations = []
    for number in range(COUNT):
        for category, box, polygon in ((1, [2, 3, 7, 5], SQUARE), (2, [10, 2, 8, 10], WIDE)):
            annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": category}
            annotations.append(annotation | {"bbox": box, "segmentation": [polygon]})
    categories = [{"id": 1, "name": "helmet"}, {"id": 2, "name": "vest"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def written(folder, content):
    populate(folder, [f"{number}.jpg" for number in range(COUNT)])
    path = folder / "list.json"
    path.write_text(json.dumps(content))
    return path


def changed(content, name, **changes):
    """The same with keys of all entries of a list replaced by functions of them, or removed."""
    for entry in content[name]:
        for key, change in changes.items():
            if change is None:
                del entry[key]
            else:
                entry[key] = change(entry.get(key))
    return content


def first_without_box(content):
    del content["annotations"][0]["bbox"]
    return content


SAME = {
    "image ids are text": lambda c: changed(c, "annotations", image_id=str),
    "ids of images are text": lambda c: changed(c, "images", id=str),
    "category ids are text": lambda c: changed(c, "annotations", category_id=str),
    "ids are floats": lambda c: changed(c, "annotations", image_id=float, category_id=float),
    "flat masks": lambda c: changed(c, "annotations", segmentation=lambda mask: mask[0]),
    "one without bbox": first_without_box,
    "masks only": lambda c: changed(c, "annotations", bbox=None),
    "empty boxes": lambda c: changed(c, "annotations", bbox=lambda box: []),
    "boxes of zeros": lambda c: changed(c, "annotations", bbox=lambda box: [0, 0, 0, 0]),
    "null boxes": lambda c: changed(c, "annotations", bbox=lambda box: None),
    "no sizes": lambda c: changed(c, "images", width=None, height=None),
    "sizes of 0": lambda c: changed(c, "images", width=lambda _: 0, height=lambda _: 0),
    "null sizes": lambda c: changed(c, "images", width=lambda _: None),
    "sizes as text": lambda c: changed(c, "images", width=str, height=str),
    "no annotation ids": lambda c: changed(c, "annotations", id=None),
    "a category twice": lambda c: c | {"categories": c["categories"] + c["categories"][:1]},
    "Roboflow's category": lambda c: (
        c | {"categories": [{"id": 0, "name": "vest"}] + c["categories"]}
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_what_is_clear_is_read(tmp_path, name):
    wanted = load(written(tmp_path / "a", document()))
    path = written(tmp_path / "b", SAME[name](document()))
    box_set = load(path)
    assert (counted(box_set), box_set.rejects) == (2 * COUNT, {})
    for got, want in zip(box_set.pictures, wanted.pictures, strict=True):
        assert (got.size, got.boxes.tolist()) == (want.size, want.boxes.tolist())
        names = [box_set.classes[label] for label in got.labels]
        assert names == [wanted.classes[label] for label in want.labels]
    shards.build(path, tmp_path / "set")
    in_shards = load(tmp_path / "set")
    assert (in_shards.digest, in_shards.rejects) == (box_set.digest, {})


def test_ids_of_several_images_are_listed(tmp_path):
    content = document()
    content["images"][1]["id"] = "0"  # as text the id of the first one
    path = written(tmp_path / "data", content)
    box_set = load(path)
    assert rejected(box_set) == {Reject.SHARED_ID: 2, Reject.UNKNOWN_IMAGE: 4}
    assert [picture.path.name for picture in box_set.pictures] == ["2.jpg", "3.jpg"]
    with pytest.raises(ShardError, match=r"2 id of several images \(0.jpg, 1.jpg\)"):
        shards.build(path, tmp_path / "set")
    changed(content, "images", id=lambda _: 0)
    path = written(tmp_path / "other", content)
    with pytest.raises(ShardError, match="all images share their ids with others, such as 0"):
        load(path)


def test_an_image_entry_twice_is_one(tmp_path):
    content = document()
    content["images"] += content["images"][:1]
    box_set = load(written(tmp_path, content))
    assert (counted(box_set), box_set.rejects) == (8, {Reject.DUPLICATE: ["0.jpg"]})


def test_categories_are_not_merged(tmp_path):
    content = document()
    content["categories"][1]["id"] = "1"
    with pytest.raises(ShardError, match="id 1 is that of the categories helmet and vest"):
        load(written(tmp_path / "ids", content))
    content = document()
    content["categories"][1]["name"] = "helmet"
    with pytest.raises(ShardError, match="categories 1 and 2 are both called helmet"):
        load(written(tmp_path / "names", content))


def broken():
    """Entries of every kind that have no place, beside the good ones."""
    content = document()
    content["images"] += [5, None, {"id": 9}, {"file_name": "0.jpg"}, {"id": [1], "file_name": "x"}]
    content["categories"] += ["eel", {"id": 5}, {"name": "eel"}]
    content["annotations"] += [
        7,
        None,
        {"id": 90},
        {"id": 91, "category_id": 1},
        {"id": 92, "image_id": 0},
        {"id": 93, "image_id": 0, "category_id": 1},
        {"id": 94, "image_id": 0, "category_id": 5, "bbox": [1, 1, 5, 5]},
        {"id": 95, "image_id": 0, "category_id": 1, "bbox": "wide"},
        {"id": 96, "image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5], "segmentation": "mask"},
        {"id": 97, "image_id": {}, "category_id": 1, "bbox": [1, 1, 5, 5]},
        {"id": 98, "image_id": 0, "category_id": [1], "bbox": [1, 1, 5, 5]},
    ]
    return content


def test_each_broken_entry_is_alone(tmp_path):
    path = written(tmp_path / "data", broken())
    box_set = load(path)
    assert counted(box_set) == 2 * COUNT + 1
    assert rejected(box_set) == {
        Reject.NO_NAME: 5,
        Reject.UNKNOWN_IMAGE: 5,
        Reject.UNKNOWN_CATEGORY: 3,
        Reject.NO_BOX: 2,
        Reject.BAD_MASK: 1,
    }
    shards.build(path, tmp_path / "set", max_rejects=0.6)
    assert load(tmp_path / "set").rejects == box_set.rejects


@pytest.mark.parametrize("drop", ["bbox", "everything"])
def test_labels_without_boxes_are_classes(tmp_path, drop, capsys):
    content = changed(document(), "annotations", bbox=None, segmentation=None)
    content["annotations"] = content["annotations"][: 2 * COUNT - 2 : 2]  # none of the last image
    content["annotations"][1]["category_id"] = 2
    if drop == "everything":
        changed(content, "images", width=None, height=None)
    path = written(tmp_path / "data", content)
    with pytest.raises(ShardError, match="wanted boxes, got categories without any"):
        load(path)
    index = shards.build(path, tmp_path / "set", max_rejects=0.5, max_side=18)
    assert index.classes == ("helmet", "vest")
    labels = dict(zip(shards.open(tmp_path / "set").keys, index.samples["label"], strict=True))
    assert {key: label for key, label in labels.items() if label >= 0} == {"0": 0, "1": 1, "2": 0}
    assert "its categories are the classes" in capsys.readouterr().err.replace("\n", " ")


def test_a_document_of_captions_is_its_images(tmp_path, capsys):
    content = document()
    del content["categories"]
    content["annotations"] = [{"id": 1, "image_id": 0, "caption": "a helmet"}]
    index = shards.build(written(tmp_path / "data", content), tmp_path / "set")
    assert (len(index.samples), index.classes, dict(index.rejects)) == (COUNT, (), {})
    assert "its annotations have no boxes" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("seed", range(4))
def test_boxes_of_masks_are_pycocotools(seed):
    rng = np.random.default_rng(seed)
    pixels = np.asfortranarray((rng.random((13, 17)) < (0.02, 0.1, 0.5, 0.98)[seed]), np.uint8)
    packed = coco_masks.encode(pixels)
    packed["counts"] = packed["counts"].decode()
    runs = np.flatnonzero(np.diff(np.r_[0, pixels.ravel("F"), 1 - pixels.ravel("F")[-1]]))
    counts = np.diff(np.r_[0, runs]).tolist()
    for mask in (packed, {"size": [13, 17], "counts": counts}):
        assert usable_mask(mask) == (mask, False)
        assert list(box_around(mask)) == coco_masks.toBbox(packed).tolist()


@pytest.mark.parametrize(
    "mask",
    [
        {"size": [4, 4], "counts": "~~~~"},
        {"size": [4, 4], "counts": [1, -2, 3]},
        {"size": [4, 4], "counts": [0, 99]},
        {"size": [4, 4], "counts": ["a", None]},
        {"size": [4, 4], "counts": 7},
        {"size": [0, 0], "counts": [1, 2]},
        {"size": "44", "counts": [1, 2]},
        {"size": [4, 4], "counts": []},
        [[1, 1, 1, 1, 1, 1]],
        [[1, 1, 5, 1, 9, 1]],
        [],
    ],
)
def test_masks_without_area_have_no_box(mask):
    assert box_around(usable_mask(mask)[0]) == ()


def test_images_may_have_an_address_only(tmp_path):
    content = document()
    for entry in content["images"]:
        entry["coco_url"] = f"http://images.cocodataset.org/train2017/{entry.pop('file_name')}"
    path = written(tmp_path / "data", content)
    assert counted(load(path)) == 2 * COUNT
    shards.build(path, tmp_path / "set")
    assert load(tmp_path / "set").digest == load(path).digest


def test_boxes_in_parts_of_the_sides_become_pixels(tmp_path, capsys):
    wanted = load(written(tmp_path / "a", document()))
    content = document()
    for annotation in content["annotations"]:
        sides = [WIDTH, HEIGHT, WIDTH, HEIGHT]
        numbers = zip(annotation["bbox"], sides, strict=True)
        annotation["bbox"] = [number / side for number, side in numbers]
        numbers = zip(annotation["segmentation"][0], sides * 2, strict=True)
        annotation["segmentation"] = [[number / side for number, side in numbers]]
    path = written(tmp_path / "b", content)
    for got, want in zip(load(path).pictures, wanted.pictures, strict=True):
        assert np.allclose(got.boxes, want.boxes)
        assert np.allclose(got.masks, want.masks)
    shards.build(path, tmp_path / "set")
    assert load(tmp_path / "set").digest == load(path).digest
    assert "all its boxes lie within 0…1" in capsys.readouterr().err.replace("\n", " ")


def random_entry(rng, number):
    """An image, perhaps spoilt, of which four files are there."""
    entry = {"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT}
    spoil = rng.choice(["", "", "", "id", "name", "size", "text", "twice", "gone"])
    if spoil == "id":
        entry["id"] = 0
    elif spoil == "name":
        del entry["file_name"]
    elif spoil == "size":
        entry["width"] = WIDTH + 1
    elif spoil == "text":
        entry["id"] = str(number)
    elif spoil == "twice":
        entry = {**entry, "id": 0, "file_name": "0.jpg"}
    elif spoil == "gone":
        entry["file_name"] = f"gone-{number}.jpg"
    return entry


def random_object(rng, number):
    """An object, perhaps spoilt, of one of five images."""
    box = rng.integers((-5, -5, -1, -1), (22, 18, 9, 9)).tolist()
    annotation = {"id": number, "image_id": int(rng.integers(5)), "category_id": 1, "bbox": box}
    for key in ("image_id", "category_id", "bbox"):
        if rng.random() < 0.1:
            del annotation[key]
        elif rng.random() < 0.1:
            annotation[key] = [None, "7", [], [1], {}, "x", 1e400][rng.integers(7)]
    if rng.random() < 0.3:
        masks = [[SQUARE], SQUARE, [[1, 2]], "x", {"size": [16, 20], "counts": [30, 5, 285]}]
        annotation["segmentation"] = masks[rng.integers(5)]
    return annotation


@pytest.mark.parametrize("seed", [n for n in range(14) if n != 13])
def test_every_entry_is_used_or_listed(tmp_path, seed):
    rng = np.random.default_rng(seed)
    content = document()
    content["images"] = [random_entry(rng, number) for number in range(COUNT)]
    content["annotations"] = [random_object(rng, number) for number in range(40)]
    path = written(tmp_path / "data", content)
    box_set = load(path)
    counts = rejected(box_set)
    of_images = [Reject.NO_NAME, Reject.SHARED_ID, Reject.DUPLICATE, Reject.OTHER_SIZE]
    left_out = sum(counts.get(reason, 0) for reason in (*of_images, Reject.NO_IMAGE))
    assert len(box_set.pictures) + left_out == COUNT
    of_objects = [Reject.UNKNOWN_IMAGE, Reject.UNKNOWN_CATEGORY, Reject.NO_BOX]
    of_objects += [Reject.DEGENERATE, Reject.OUTSIDE]
    listed = sum(counts.get(reason, 0) for reason in of_objects)
    boxes = sum(len(picture.boxes) for picture in box_set.pictures)
    gone = {*box_set.rejects.get(Reject.OTHER_SIZE, []), *box_set.rejects.get(Reject.NO_IMAGE, [])}
    ids = {str(entry["id"]) for entry in content["images"] if entry.get("file_name") in gone}
    with_image = [str(annotation.get("image_id")) in ids for annotation in content["annotations"]]
    assert boxes + listed + sum(with_image) == 40
    shards.build(path, tmp_path / "set", max_rejects=1)
    assert load(tmp_path / "set").digest == box_set.digest
