import json
import math
import shutil

import numpy as np
import pytest
from made_images import image_bytes, populate
from pycocotools.coco import COCO

from shards import ShardError, scenes
from shards.boxes import BoxReject, load

WIDTH, HEIGHT, BOX = 20, 16, (2, 3, 9, 8)
IDS = {"dog": 3, "cat": 7}  # by id, the classes are not in the order of their names
SIZE = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
COCOS = ("annotations/instances_train2017.json", "train2017")
OBJECT = "<object><name> {} </name><difficult>{:d}</difficult><bndbox>{}</bndbox></object>"


def coco(root, things, path="set.json", images=".", **replaced):
    """A COCO JSON; ``things`` are (name, (left, top, right, bottom)[, ignored]) by the stem of their image."""
    populate(root / images, [f"{stem}.jpg" for stem in things])
    listed = [{"id": n, "file_name": f"{stem}.jpg", "width": WIDTH, "height": HEIGHT} for n, stem in enumerate(things, 10)]
    annotations = [
        {"image_id": n, "category_id": IDS.get(name, 99), "bbox": [left, top, right - left, bottom - top], "iscrowd": int(any(ignored))}
        for n, stem in enumerate(things, 10)
        for name, (left, top, right, bottom), *ignored in things[stem]
    ]
    categories = [{"id": number, "name": name} for name, number in reversed(IDS.items())]
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(json.dumps({"images": listed, "categories": categories, "annotations": annotations} | replaced))
    return root / path


def voc(root, things, size=SIZE, file=""):
    """A VOC devkit with the same; its sides count from 1, and the last pixel belongs to the box."""
    populate(root / "JPEGImages", [file or f"{stem}.jpg" for stem in things])
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for stem, objects in things.items():
        text = f"<filename>{file}</filename>{size}"
        for name, (left, top, *last), *ignored in objects:
            sides = zip(("xmin", "ymin", "xmax", "ymax"), (left + 1, top + 1, *last), strict=False)
            text += OBJECT.format(name, any(ignored), "".join(f"<{side}>{value}</{side}>" for side, value in sides))
        (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{text}</annotation>")
    path = root / "ImageSets" / "Main" / "train.txt"
    path.write_text("".join(f"{stem}  1\n\n" for stem in things))
    return path


@pytest.fixture(params=[coco, voc])
def write(request):
    return request.param


def rejected(found):
    return {reason: len(names) for reason, names in found.rejects.items()}


def test_images_boxes_and_classes(tmp_path, write):
    path = write(tmp_path, {"b": [("dog", (0, 0, 20, 16)), ("cat", (2.5, 3, 9.25, 8), True)], "a": [("dog", BOX)]})
    if write is coco:
        assert '"bbox": [2.5, 3, 6.75, 5], "iscrowd": 1' in path.read_text()
    else:
        assert "<xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>16</ymax>" in (tmp_path / "Annotations/b.xml").read_text()
    found = load(str(path))
    assert (found.path, found.classes) == (path, ("dog", "cat") if write is coco else ("cat", "dog"))
    assert (found.rejects, found.counted) == ({}, 2)
    first, second = found.pictures
    folder = tmp_path if write is coco else tmp_path / "JPEGImages"
    assert (first.path, first.size, second.path) == (folder / "b.jpg", (WIDTH, HEIGHT), folder / "a.jpg")
    assert first.boxes.tolist() == [[0, 0, 20, 16], [2.5, 3, 9.25, 8]]
    assert ([found.classes[label] for label in first.labels], first.ignored.tolist()) == (["dog", "cat"], [False, True])


def test_an_image_without_boxes_is_kept(tmp_path, write):
    empty, other = load(write(tmp_path, {"a": [], "b": [("cat", BOX)]})).pictures
    assert [values.shape for values in empty[2:]] == [(0, 4), (0,), (0,)]
    assert [values.dtype for values in empty[2:]] == [values.dtype for values in other[2:]] == [np.float32, np.int64, np.bool_]


def test_given_classes_fix_the_labels(tmp_path, write):
    path = write(tmp_path, {"a": [("dog", BOX), ("cat", (1, 1, 5, 5))]})
    found = load(path, classes=["eel", "cat", "dog"])
    assert (found.classes, found.pictures[0].labels.tolist(), found.rejects) == (("eel", "cat", "dog"), [2, 1], {})
    found = load(path, classes=["cat"])
    assert (found.classes, found.pictures[0].boxes.tolist(), found.pictures[0].labels.tolist()) == (("cat",), [[1, 1, 5, 5]], [0])
    assert found.rejects == {BoxReject.UNKNOWN_CATEGORY: ["a.jpg: dog [2.0, 3.0, 9.0, 8.0]"]}


def test_categories_and_images_that_coco_does_not_list(tmp_path):
    annotations = [{"image_id": image, "category_id": category, "bbox": [2, 3, 7, 5]} for image, category in ((10, 99), (55, 7), (10, 7))]
    found = load(coco(tmp_path, {"a": []}, annotations=annotations))
    assert (found.classes, found.pictures[0].labels.tolist(), found.pictures[0].ignored.tolist()) == (("dog", "cat"), [1], [False])
    assert found.rejects[BoxReject.UNKNOWN_IMAGE] == ["image 55: cat"]
    assert rejected(found) == {BoxReject.UNKNOWN_IMAGE: 1, BoxReject.UNKNOWN_CATEGORY: 1}


def test_boxes_are_cut_at_the_border(tmp_path, write):
    boxes = [(-4, -5, 7, 6), (15, 9, 22, 21), (-3, 2, 30, 5), (18, 2, 20, 5)]
    found = load(write(tmp_path, {"a": [("cat", box) for box in boxes]}))
    assert found.pictures[0].boxes.tolist() == [[0, 0, 7, 6], [15, 9, 20, 16], [0, 2, 20, 5], [18, 2, 20, 5]]
    assert found.rejects == {}


def test_boxes_beside_the_image_are_rejected(tmp_path, write):
    boxes = [(-9, 3, 0, 8), (20, 3, 29, 8), (2, -9, 9, 0), (2, 16, 9, 18)]
    found = load(write(tmp_path, {"a": [("cat", box) for box in boxes]}))
    assert (rejected(found), found.pictures[0].boxes.shape) == ({BoxReject.OUTSIDE: 4}, (0, 4))


def test_boxes_without_area_in_coco(tmp_path):
    bad = [[2, 3, 0, 5], [2, 3, -7, 5], [2, 3, 7, 0], [2, 3, 7, -1], [math.nan, 3, 7, 5], [2, 3, 7, math.nan], [2, 3, math.inf, 5]]
    bad += [[2, 3, 7, math.inf], [-math.inf, 3, 7, 5], [2, 3, 7], [], [2, 3, 7, 5, 1], [2, 3, "wide", 5], None, [10**400, 3, 7, 5]]
    bad += [[15, 3, 1e-7, 5], [19.9999, 3, 7, 1e-9]]
    annotations = [{"image_id": 10, "category_id": 7, "bbox": bbox} for bbox in (*bad, [2, 3, 7, 5])]
    found = load(coco(tmp_path, {"a": []}, annotations=annotations))
    assert (found.pictures[0].boxes.tolist(), rejected(found)) == ([[2, 3, 9, 8]], {BoxReject.DEGENERATE: len(bad)})


def test_boxes_without_area_in_voc(tmp_path):
    bad = [(2, 3, 3, 8), (2, 3, 2, 8), (2, 3, 1, 8), (2, 3, 9, 4), (2, 3, 9, 3), (2, math.nan, 9, 8), (2, 3, 9, math.nan)]
    bad += [(-math.inf, 3, 9, 8), (2, 3, math.inf, 8), (2, 3, 9, math.inf), (2, 3, "x", 8), (2, 3, "", 8), (2, 3, 9), (2, 3)]
    found = load(voc(tmp_path, {"a": [("cat", box) for box in (*bad, BOX)]}))
    assert (found.pictures[0].boxes.tolist(), rejected(found)) == ([[2, 3, 9, 8]], {BoxReject.DEGENERATE: len(bad)})


@pytest.mark.parametrize("seed", range(3))
def test_every_box_is_kept_or_rejected(tmp_path, write, seed):
    rng, want, kept, things = np.random.default_rng(seed), dict.fromkeys(BoxReject, 0), [], {}
    for n in range(5):
        things[f"{n}"] = []
        for left, top, width, height in rng.integers((-8, -8, -3, -3), (24, 20, 16, 16), (30, 4)).tolist():
            name, ignored, right, bottom = str(rng.choice(["cat", "dog", "eel"])), bool(rng.integers(2)), left + width, top + height
            things[f"{n}"].append((name, (left, top, right, bottom), ignored))
            columns, rows = [x for x in range(left, right) if 0 <= x < WIDTH], [y for y in range(top, bottom) if 0 <= y < HEIGHT]
            if name == "eel":
                want[BoxReject.UNKNOWN_CATEGORY] += 1
            elif min(width, height) <= (write is voc):  # VOC's xmin == xmax has no area
                want[BoxReject.DEGENERATE] += 1
            elif not columns or not rows:
                want[BoxReject.OUTSIDE] += 1
            else:
                kept.append([n, columns[0], rows[0], columns[-1] + 1, rows[-1] + 1, ["cat", "dog"].index(name), ignored])
    found = load(write(tmp_path, things), classes=["cat", "dog"])
    assert [
        [n, *box, *rest] for n, p in enumerate(found.pictures) for box, *rest in zip(*map(np.ndarray.tolist, p[2:]), strict=True)
    ] == kept
    assert rejected(found) == {reason: count for reason, count in want.items() if count}
    assert len(rejected(found)) == 3
    assert len(kept) + sum(rejected(found).values()) == 5 * 30


def test_missing_images(tmp_path, write):
    path = write(tmp_path, {"a": [("cat", BOX)], "b": [("cat", BOX)]})
    next(tmp_path.rglob("a.jpg")).unlink()
    found = load(path)
    assert [picture.path.name for picture in found.pictures] == ["b.jpg"]
    assert found.rejects == {BoxReject.NO_IMAGE: ["a.jpg" if write is coco else "a"]}
    next(tmp_path.rglob("b.jpg")).unlink()
    with pytest.raises(ShardError, match=rf"no image that {path} lists is there \(2 entries left out.*check the layout"):
        load(path)


def test_missing_and_broken_voc_annotations(tmp_path):
    path = voc(tmp_path, {stem: [("cat", BOX)] for stem in "abcde"})
    (tmp_path / "Annotations" / "a.xml").unlink()
    (tmp_path / "Annotations" / "b.xml").write_text("<annotation><object>")
    (tmp_path / "Annotations" / "c.xml").write_text(f"<annotation>{SIZE.replace('16', 'many')}</annotation>")
    (tmp_path / "Annotations" / "d.xml").write_text('<?xml version="1.0" encoding="foo"?><annotation/>')
    found = load(path)
    broken = {BoxReject.NO_ANNOTATION: ["a", "b", "c", "d"]}
    assert ([picture.path.stem for picture in found.pictures], found.rejects) == (["e"], broken)


def test_a_list_that_is_no_text_and_a_name_twice(tmp_path):
    path = voc(tmp_path, {"a": [("cat", BOX)]})
    path.write_text("a\na 1\n")
    assert len(load(path).pictures) == 1
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ShardError, match="is no VOC list"):
        load(path)


def test_paths_relative_to_any_folder(tmp_path, monkeypatch):
    listed = voc(tmp_path / "voc", {"a": [("cat", BOX)]})
    annotated = coco(tmp_path / "coco", {"a": [("cat", BOX)]}, *COCOS)
    for path in (listed, annotated):
        monkeypatch.chdir(path.parent)
        assert load(path.name).counted == 1


def test_voc_images_of_another_name(tmp_path):
    assert load(voc(tmp_path, {"a": []}, file="other.png")).pictures[0].path == tmp_path / "JPEGImages" / "other.png"


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>"])
def test_a_voc_annotation_without_size_takes_the_images(tmp_path, size):
    path = voc(tmp_path, {"a": [("cat", (15, 9, 40, 40))], "b": []}, size)
    (tmp_path / "JPEGImages" / "b.jpg").write_bytes(b"no image")
    found = load(path)
    assert [(picture.size, picture.boxes.tolist()) for picture in found.pictures] == [((WIDTH, HEIGHT), [[15, 9, 20, 16]])]
    assert found.rejects == {BoxReject.NO_IMAGE: ["b"]}


@pytest.mark.parametrize(("path", "images"), [("annotations.json", "."), ("annotations.json", "images"), COCOS])
def test_where_cocos_images_are_looked_for(tmp_path, path, images):
    path = coco(tmp_path, {"deep/a": [("cat", BOX)]}, path, images)
    found = load(tmp_path if path.name == "annotations.json" else path)
    assert (found.path, [picture.path for picture in found.pictures]) == (path, [tmp_path / images / "deep/a.jpg"])


def test_the_digest_follows_boxes_classes_and_images_alone(tmp_path, write):
    def digest(folder, things, classes=("cat", "dog")):
        return load(write(tmp_path / folder, {"x": things, "y": []}), classes=classes).digest

    cat, dog = ("cat", BOX), ("dog", (1, 1, 5, 5))
    first = digest("a", [cat, dog])
    others = [[cat, ("dog", (1, 1, 5, 6))], [cat, ("cat", (1, 1, 5, 5))], [cat, (*dog, True)], [cat]]
    digests = {first, *(digest(f"{n}", things) for n, things in enumerate(others))}
    digests |= {digest("a", [cat, dog], classes) for classes in (["dog", "cat"], ["cat", "dog", "eel"])}
    moved = write(tmp_path / "moved", {"x": [cat, dog], "y": []})
    assert load(moved, classes=["cat", "dog"]).digest == first
    image = next((tmp_path / "moved").rglob("x.jpg"))
    for end in (b"?", b"??"):  # the size of the file counts, not its bytes
        image.write_bytes(image.read_bytes()[:-1] + end)
        digests.add(load(moved, classes=["cat", "dog"]).digest)
    assert len(digests) == 1 + len(others) + 2 + 1


def test_the_digest_follows_the_annotated_size_and_not_how_it_is_written(tmp_path):
    sizes = [SIZE, SIZE.replace("20", "21"), SIZE.replace("16", "17")]
    assert len({load(voc(tmp_path / f"{n}", {"x": []}, size)).digest for n, size in enumerate(sizes)}) == 3
    path = coco(tmp_path / "coco", {"x": [("cat", BOX)]})
    first = load(path).digest
    path.write_text(json.dumps({"info": "new"} | json.loads(path.read_text()), indent=4))
    moved = shutil.copytree(path.parent, tmp_path / "moved") / path.name
    assert load(path).digest == load(moved).digest == first


def test_what_is_no_list_of_boxes_is_one_clear_line(tmp_path):
    odd = ["[]", "{}", '{"images": [], "categories": [], "annotations": 3}', '{"images": [{"id": 1}], "categories": [], "annotations": []}']
    for name, text in (("notes.md", "x"), ("broken.json", "{"), *((f"{n}.json", text) for n, text in enumerate(odd))):
        (tmp_path / name).write_text(text)
    voc(tmp_path / "VOC", {"a": []}).with_name("val.txt").write_text("")
    for name, got in (
        *((name, "wanted a COCO JSON or a VOC list .*; check the path") for name in ("missing", "missing.json", "notes.md")),
        ("VOC", "name one of its lists: .*VOC/ImageSets/Main/train.txt, .*VOC/ImageSets/Main/val.txt"),
        ("broken.json", "cannot be read as JSON"),
        *((f"{n}.json", "is no COCO instances file") for n in range(len(odd))),
    ):
        with pytest.raises(ShardError, match=got) as error:
            load(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_picture_decodes_as_annotated_or_not_at_all(tmp_path, write):
    picture = load(write(tmp_path, {"a": []})).pictures[0]
    assert (picture.image().size, picture.image().mode) == ((WIDTH, HEIGHT), "RGB")
    for data, got in ((image_bytes(size=(16, 20)), "16 × 20 pixels, its annotation says 20 × 16"), (b"no image", "not an image")):
        picture.path.write_bytes(data)
        with pytest.raises(ShardError, match=rf"{picture.path}.*{got}"):
            picture.image()
    picture.path.unlink()
    with pytest.raises(ShardError, match=rf"cannot read {picture.path}: No such file"):
        picture.image()


def test_pycocotools_reads_the_same(tmp_path):
    scenes.write(tmp_path / "scenes", count=24)
    found, reference = load(tmp_path / "scenes"), COCO(tmp_path / "scenes" / "annotations.json")
    assert (len(found.pictures), found.classes, found.rejects) == (24, scenes.CLASSES, {})
    for number, picture in zip(reference.getImgIds(), found.pictures, strict=True):
        assert picture.path == tmp_path / "scenes" / "images" / reference.imgs[number]["file_name"]
        annotations = reference.loadAnns(reference.getAnnIds(number))
        assert picture.boxes.tolist() == [[x, y, x + w, y + h] for x, y, w, h in (one["bbox"] for one in annotations)]
        assert [found.classes[label] for label in picture.labels] == [reference.cats[one["category_id"]]["name"] for one in annotations]


def test_blood_cells(unpacked):
    (root,) = unpacked("bccd.tar").rglob("BCCD")
    found = load(root / "ImageSets" / "Main" / "trainval.txt")
    assert (len(found.pictures), found.counted, found.classes) == (292, 3941, ("Platelets", "RBC", "WBC"))
    assert rejected(found) == {BoxReject.DEGENERATE: 2}
    assert [name.partition(":")[0] for name in found.rejects[BoxReject.DEGENERATE]] == ["BloodImage_00338.jpg", "BloodImage_00343.jpg"]


def test_coco_itself(unpacked):
    root = unpacked("coco-mini-permissive.tar") / "coco-mini-permissive"
    for name, images, boxes, crowds in (("train2017", 78, 744, 9), ("val2017", 47, 469, 7)):
        found = load(root / "annotations" / f"instances_{name}.json")
        assert (len(found.pictures), sum(len(picture.boxes) for picture in found.pictures), found.rejects) == (images, boxes, {})
        assert (found.counted, len(found.classes)) == (boxes - crowds, 80)
