"""Boxes, classes, flags and masks of a list as arrays."""

import json
import shutil
from math import inf, nan
from pathlib import Path
import numpy as np
import pytest
from made_images import image_bytes
from made_lists import (
    BOX,
    HEIGHT,
    MASKS,
    SIZE,
    USABLE_MASKS,
    WIDTH,
    coco,
    counted,
    masked,
    rejected,
    voc,
)
from shards import Reject, ShardError
from shards.boxes import load


@pytest.fixture(params=[coco, voc])
def write(request):
    return request.param


def test_images_boxes_and_classes(tmp_path, write):
    things = {
        "b": [("dog", (0, 0, 20, 16)), ("cat", (2.5, 3, 9.25, 8), True)],
        "a": [("dog", BOX)],
    }
    path = write(tmp_path, things)
    if write is coco:
        classes = ("dog", "cat")
        folder = tmp_path
        file = path
        text = '"bbox": [2.5, 3, 6.75, 5], "iscrowd": 1'
    else:
        classes = ("cat", "dog")
        folder = tmp_path / "JPEGImages"
        file = tmp_path / "Annotations/b.xml"
        text = "<xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>16</ymax>"
    assert text in file.read_text()
    box_set = load(str(path))
    assert (box_set.path, box_set.classes) == (path, classes)
    assert (box_set.rejects, counted(box_set)) == ({}, 2)
    first, second = box_set.pictures
    assert (first.path, second.path) == (folder / "b.jpg", folder / "a.jpg")
    assert first.size == (WIDTH, HEIGHT)
    assert first.boxes.tolist() == [[0, 0, 20, 16], [2.5, 3, 9.25, 8]]
    assert [classes[label] for label in first.labels] == ["dog", "cat"]
    assert first.ignored.tolist() == [False, True]


def test_an_image_without_boxes_is_kept(tmp_path, write):
    empty, other = load(write(tmp_path, {"a": [], "b": [("cat", BOX)]})).pictures
    dtypes = [np.float32, np.int64, np.bool_, np.bool_]
    assert [values.shape for values in empty[2:6]] == [(0, 4), (0,), (0,), (0,)]
    assert [values.dtype for values in empty[2:6]] == dtypes
    assert [values.dtype for values in other[2:6]] == dtypes
    assert (empty.masks, other.masks) == ([], [[]])


def test_given_classes_fix_the_labels(tmp_path, write):
    path = write(tmp_path, {"a": [("dog", BOX), ("cat", (1, 1, 5, 5))]})
    box_set = load(path, classes=["eel", "cat", "dog"])
    assert (box_set.classes, box_set.rejects) == (("eel", "cat", "dog"), {})
    assert box_set.pictures[0].labels.tolist() == [2, 1]
    box_set = load(path, classes=["cat"])
    picture = box_set.pictures[0]
    assert box_set.classes == ("cat",)
    assert (picture.boxes.tolist(), picture.labels.tolist()) == ([[1, 1, 5, 5]], [0])
    assert box_set.rejects == {Reject.UNKNOWN_CATEGORY: ["a.jpg: dog [2.0, 3.0, 9.0, 8.0]"]}


def test_categories_and_images_that_coco_does_not_list(tmp_path):
    annotations = [
        {"image_id": image, "category_id": category, "bbox": [2, 3, 7, 5]}
        for image, category in ((10, 99), (55, 7), (10, 7))
    ]
    box_set = load(coco(tmp_path, {"a": []}, annotations=annotations))
    picture = box_set.pictures[0]
    assert box_set.classes == ("dog", "cat")
    assert (picture.labels.tolist(), picture.ignored.tolist()) == ([1], [False])
    assert box_set.rejects[Reject.UNKNOWN_IMAGE] == ["image 55: cat"]
    assert rejected(box_set) == {Reject.UNKNOWN_IMAGE: 1, Reject.UNKNOWN_CATEGORY: 1}


def test_boxes_are_cut_at_the_border(tmp_path, write):
    boxes = [(-4, -5, 7, 6), (15, 9, 22, 21), (-3, 2, 30, 5), (18, 2, 20, 5)]
    cut = [[0, 0, 7, 6], [15, 9, 20, 16], [0, 2, 20, 5], [18, 2, 20, 5]]
    box_set = load(write(tmp_path, {"a": [("cat", box) for box in boxes]}))
    assert (box_set.pictures[0].boxes.tolist(), box_set.rejects) == (cut, {})


def test_boxes_beside_the_image_are_rejected(tmp_path, write):
    boxes = [(-9, 3, 0, 8), (20, 3, 29, 8), (2, -9, 9, 0), (2, 16, 9, 18)]
    box_set = load(write(tmp_path, {"a": [("cat", box) for box in boxes]}))
    assert rejected(box_set) == {Reject.OUTSIDE: 4}
    assert box_set.pictures[0].boxes.shape == (0, 4)


def test_boxes_without_area_in_coco(tmp_path):
    no_extent = [[2, 3, 0, 5], [2, 3, -7, 5], [2, 3, 7, 0], [2, 3, 7, -1]]
    too_thin = [[15, 3, 1e-7, 5], [19.9999, 3, 7, 1e-9]]
    not_finite = [[nan, 3, 7, 5], [2, 3, 7, nan], [2, 3, inf, 5], [2, 3, 7, inf], [-inf, 3, 7, 5]]
    not_four = [[2, 3, 7], [], [2, 3, 7, 5, 1], None]
    no_numbers = [[2, 3, "wide", 5], [10**400, 3, 7, 5]]
    no_area = no_extent + too_thin
    no_box = not_finite + not_four + no_numbers
    bad = no_area + no_box
    annotations = [
        {"image_id": 10, "category_id": 7, "bbox": bbox} for bbox in (*bad, [2, 3, 7, 5])
    ]
    box_set = load(coco(tmp_path, {"a": []}, annotations=annotations))
    assert box_set.pictures[0].boxes.tolist() == [[2, 3, 9, 8]]
    assert rejected(box_set) == {Reject.DEGENERATE: len(no_area), Reject.NO_BOX: len(no_box)}


def test_boxes_without_area_in_voc(tmp_path):
    no_extent = [(2, 3, 3, 8), (2, 3, 2, 8), (2, 3, 1, 8), (2, 3, 9, 4), (2, 3, 9, 3)]
    not_finite = [(2, nan, 9, 8), (2, 3, 9, nan), (-inf, 3, 9, 8), (2, 3, inf, 8), (2, 3, 9, inf)]
    not_four_numbers = [(2, 3, "x", 8), (2, 3, "", 8), (2, 3, 9), (2, 3)]
    bad = no_extent + not_finite + not_four_numbers
    box_set = load(voc(tmp_path, {"a": [("cat", box) for box in (*bad, BOX)]}))
    assert box_set.pictures[0].boxes.tolist() == [[2, 3, 9, 8]]
    assert rejected(box_set) == {Reject.DEGENERATE: len(bad)}


def random_things(rng):
    """Thirty objects in each of five images, many of them odd."""
    things = {}
    for number in range(5):
        objects = []
        for x, y, width, height in rng.integers((-8, -8, -3, -3), (24, 20, 16, 16), (30, 4)):
            name = str(rng.choice(["cat", "dog", "eel"]))
            box = tuple(map(int, (x, y, x + width, y + height)))
            objects.append((name, box, bool(rng.integers(2))))
        things[f"{number}"] = objects
    return things


def naive_fate(name, box, least_extent):
    """The part of a box that is inside of the image, or why it is rejected, pixel by pixel."""
    x_min, y_min, x_max, y_max = box
    columns = [x for x in range(x_min, x_max) if 0 <= x < WIDTH]
    rows = [y for y in range(y_min, y_max) if 0 <= y < HEIGHT]
    if name == "eel":
        return Reject.UNKNOWN_CATEGORY
    if min(x_max - x_min, y_max - y_min) < least_extent:
        return Reject.DEGENERATE
    if not columns or not rows:
        return Reject.OUTSIDE
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("seed", range(3))
def test_every_box_is_kept_or_rejected(tmp_path, write, seed):
    things = random_things(np.random.default_rng(seed))
    least_extent = 2 if write is voc else 1  # VOC's xmin == xmax has no area
    wanted_boxes = []
    wanted_rejects = dict.fromkeys(Reject, 0)
    for number, objects in enumerate(things.values()):
        for name, box, ignored in objects:
            fate = naive_fate(name, box, least_extent)
            if isinstance(fate, Reject):
                wanted_rejects[fate] += 1
            else:
                wanted_boxes.append([number, fate, ["cat", "dog"].index(name), ignored])
    box_set = load(write(tmp_path, things), classes=["cat", "dog"])
    boxes = []
    for number, picture in enumerate(box_set.pictures):
        rows = zip(picture.boxes, picture.labels, picture.ignored, strict=True)
        boxes += [[number, box.tolist(), label, ignored] for box, label, ignored in rows]
    assert boxes == wanted_boxes
    assert rejected(box_set) == {reason: n for reason, n in wanted_rejects.items() if n}
    assert len(rejected(box_set)) == 3
    assert len(boxes) + sum(rejected(box_set).values()) == 5 * 30


def test_masks_are_kept_as_they_are_written(tmp_path):
    box_set = load(masked(tmp_path))
    assert box_set.pictures[0].masks == [*USABLE_MASKS, []]
    cut = ["a.jpg: cat"] * sum(
        bool(mask) and mask != usable for mask, usable in zip(MASKS, USABLE_MASKS, strict=True)
    )
    assert (box_set.voc, box_set.rejects) == (False, {Reject.BAD_MASK: cut})
    assert load(masked(tmp_path), classes=["dog"]).pictures[0].masks == [[]]


def test_difficult_objects_are_vocs_and_crowds_are_cocos(tmp_path, write):
    box_set = load(write(tmp_path, {"a": [("dog", BOX), ("cat", BOX, True)]}))
    picture = box_set.pictures[0]
    flags = {"crowd": picture.crowd.tolist(), "difficult": picture.difficult.tolist()}
    assert flags.pop("difficult" if write is voc else "crowd") == [False, True]
    assert list(flags.values()) == [[False, False]]
    assert picture.ignored.tolist() == [False, True]
    assert (box_set.voc, counted(box_set)) == (write is voc, 1)


def test_a_picture_decodes_as_annotated_or_not_at_all(tmp_path, write):
    box_set = load(write(tmp_path, {"a": []}))
    path = box_set.pictures[0].path
    assert (box_set.image(0).size, box_set.image(0).mode) == ((WIDTH, HEIGHT), "RGB")
    for data, got in (
        (image_bytes(size=(16, 20)), "16 × 20 pixels, its annotation says 20 × 16"),
        (b"no image", "not an image"),
    ):
        path.write_bytes(data)
        with pytest.raises(ShardError, match=rf"{path}.*{got}"):
            box_set.image(0)
    path.unlink()
    with pytest.raises(ShardError, match=rf"cannot read {path}: No such file"):
        box_set.image(0)


# the digest


def test_the_digest_follows_boxes_classes_and_images_alone(tmp_path, write):
    def digest(folder, things, classes=("cat", "dog")):
        return load(write(tmp_path / folder, {"x": things, "y": []}), classes=classes).digest

    cat = ("cat", BOX)
    dog = ("dog", (1, 1, 5, 5))
    first = digest("a", [cat, dog])
    other_things = [
        [cat, ("dog", (1, 1, 5, 6))],
        [cat, ("cat", (1, 1, 5, 5))],
        [cat, (*dog, True)],
        [cat],
    ]
    digests = {first}
    digests |= {digest(f"{n}", things) for n, things in enumerate(other_things)}
    for classes in (["dog", "cat"], ["cat", "dog", "eel"]):
        digests.add(digest("a", [cat, dog], classes))
    moved = write(tmp_path / "moved", {"x": [cat, dog], "y": []})
    assert load(moved, classes=["cat", "dog"]).digest == first
    image = next((tmp_path / "moved").rglob("x.jpg"))
    for end in (b"?", b"??"):  # the same size, and another one
        image.write_bytes(image.read_bytes()[:-1] + end)
        digests.add(load(moved, classes=["cat", "dog"]).digest)
    assert len(digests) == 1 + len(other_things) + 2 + 2


def test_the_digest_follows_the_annotated_size_and_not_how_it_is_written(tmp_path):
    sizes = [(20, 16), (21, 16), (20, 17)]
    lists = list[Path]()
    for number, (width, height) in enumerate(sizes):
        size = SIZE.replace("20", f"{width}").replace("16", f"{height}")
        lists.append(voc(tmp_path / f"{number}", {"x": []}, size))
        file = tmp_path / f"{number}" / "JPEGImages" / "x.jpg"
        data = image_bytes(size=(width, height), file_format="JPEG")
        file.write_bytes(data.ljust(4000, b"?"))  # of equal length
    assert len({load(path).digest for path in lists}) == 3
    path = coco(tmp_path / "coco", {"x": [("cat", BOX)]})
    first = load(path).digest
    path.write_text(json.dumps({"info": "new"} | json.loads(path.read_text()), indent=4))
    moved = shutil.copytree(path.parent, tmp_path / "moved") / path.name
    assert load(path).digest == load(moved).digest == first


def test_the_digest_follows_masks_and_tells_difficult_from_crowd(tmp_path):
    path = masked(tmp_path)

    def digest_with(*replacements):
        for old, new in replacements:
            path.write_text(path.read_text().replace(old, new))
        return load(path).digest

    digests = [
        digest_with(),
        digest_with(("8.5", "8.25")),
        digest_with(("[30, 5, 285]", "[30, 6, 284]")),
        digest_with(('"bbox"', '"iscrowd": 1, "bbox"')),
    ]
    as_coco = digest_with(("iscrowd", "difficult"))
    as_voc = digest_with(('{"images"', '{"voc": true, "images"'))
    assert len({*digests, as_voc}) == 5
    assert as_coco == digests[2]  # COCO's format knows no difficult objects
