"""Where the files of COCO and of Pascal VOC are, and what is none."""

import json
import numpy as np
import pytest
from made_lists import BOX, COCOS_LAYOUT, HEIGHT, SIZE, WIDTH, coco, counted, rejected, voc
from pycocotools.coco import COCO
from shards import Reject, ShardError, scenes
from shards.boxes import load


@pytest.fixture(params=[coco, voc])
def write(request):
    return request.param


def test_missing_images(tmp_path, write):
    path = write(tmp_path, {"a": [("cat", BOX)], "b": [("cat", BOX)]})
    next(tmp_path.rglob("a.jpg")).unlink()
    box_set = load(path)
    assert [picture.path.name for picture in box_set.pictures] == ["b.jpg"]
    assert box_set.rejects == {Reject.NO_IMAGE: ["a.jpg" if write is coco else "a"]}
    next(tmp_path.rglob("b.jpg")).unlink()
    message = rf"no image that {path} lists is there \(2 entries left out.*check the layout"
    with pytest.raises(ShardError, match=message):
        load(path)


def test_missing_and_broken_voc_annotations(tmp_path):
    path = voc(tmp_path, {stem: [("cat", BOX)] for stem in "abcde"})
    size = SIZE.replace("16", "many")
    for stem, text in (
        ("b", "<annotation><object>"),
        ("c", f"<annotation>{size}</annotation>"),
        ("d", '<?xml version="1.0" encoding="foo"?><annotation/>'),
    ):
        (tmp_path / "Annotations" / f"{stem}.xml").write_text(text)
    (tmp_path / "Annotations" / "a.xml").unlink()
    box_set = load(path)
    assert [picture.path.stem for picture in box_set.pictures] == ["a", "e"]
    assert [len(picture.boxes) for picture in box_set.pictures] == [0, 1]  # as CVAT writes it
    assert box_set.rejects == {Reject.NO_ANNOTATION: ["b", "c", "d"]}


def test_a_list_that_is_no_text_and_a_name_twice(tmp_path):
    path = voc(tmp_path, {"a": [("cat", BOX)]})
    path.write_text("a\na 1\n")
    assert len(load(path).pictures) == 1
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ShardError, match="is no VOC list"):
        load(path)


def test_paths_relative_to_any_folder(tmp_path, monkeypatch):
    devkit = voc(tmp_path / "voc", {"a": [("cat", BOX)]})
    instances = coco(tmp_path / "coco", {"a": [("cat", BOX)]}, *COCOS_LAYOUT)
    for path in (devkit, instances):
        monkeypatch.chdir(path.parent)
        assert counted(load(path.name)) == 1


def test_voc_images_of_another_name(tmp_path):
    box_set = load(voc(tmp_path, {"a": []}, file="other.png"))
    assert box_set.pictures[0].path == tmp_path / "JPEGImages" / "other.png"


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>"])
def test_a_voc_annotation_without_size_takes_the_images(tmp_path, size):
    path = voc(tmp_path, {"a": [("cat", (15, 9, 40, 40))], "b": []}, size)
    (tmp_path / "JPEGImages" / "b.jpg").write_bytes(b"no image")
    box_set = load(path)
    (picture,) = box_set.pictures
    assert (picture.size, picture.boxes.tolist()) == ((WIDTH, HEIGHT), [[15, 9, 20, 16]])
    assert box_set.rejects == {Reject.NO_IMAGE: ["b"]}


@pytest.mark.parametrize(
    ("path", "images"), [("annotations.json", "."), ("annotations.json", "images"), COCOS_LAYOUT]
)
def test_where_cocos_images_are_looked_for(tmp_path, path, images):
    path = coco(tmp_path, {"deep/a": [("cat", BOX)]}, path, images)
    box_set = load(tmp_path if path.name == "annotations.json" else path)
    assert box_set.path == path
    assert [picture.path for picture in box_set.pictures] == [tmp_path / images / "deep/a.jpg"]


OTHER_JSON = [
    "[]",
    "{}",
    '{"images": [], "categories": [], "annotations": 3}',
    '{"images": [{"id": 1}], "categories": [], "annotations": []}',
]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing", None, "wanted a COCO JSON or a VOC list .*; check the path"),
        ("missing.json", None, "wanted a COCO JSON or a VOC list .*; check the path"),
        ("notes.md", "x", "wanted a COCO JSON or a VOC list .*; check the path"),
        ("broken.json", "{", "cannot be read as JSON"),
        *[("other.json", text, "is no COCO instances file") for text in OTHER_JSON],
    ],
)
def test_what_is_no_list_of_boxes_is_one_clear_line(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ShardError, match=message) as error:
        load(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_devkit_is_told_by_its_lists(tmp_path):
    voc(tmp_path / "VOC", {"a": []}).with_name("val.txt").write_text("")
    lists = "VOC/ImageSets/Main/train.txt, .*VOC/ImageSets/Main/val.txt"
    with pytest.raises(ShardError, match=f"name one of its lists: .*{lists}") as error:
        load(tmp_path / "VOC")
    assert "\n" not in str(error.value)


def test_pycocotools_reads_the_same(tmp_path):
    scenes.write(tmp_path / "scenes", count=24)
    box_set = load(tmp_path / "scenes")
    reference = COCO(tmp_path / "scenes" / "annotations.json")
    assert (len(box_set.pictures), box_set.classes) == (24, scenes.CLASSES)
    assert box_set.rejects == {}
    for number, picture in zip(reference.getImgIds(), box_set.pictures, strict=True):
        file_name = reference.imgs[number]["file_name"]
        assert picture.path == tmp_path / "scenes" / "images" / file_name
        annotations = reference.loadAnns(reference.getAnnIds(number))
        boxes = np.array([annotation["bbox"] for annotation in annotations], float)
        boxes[:, 2:] += boxes[:, :2]
        assert picture.boxes.tolist() == boxes.tolist()
        for label, annotation in zip(picture.labels, annotations, strict=True):
            name = reference.cats[annotation["category_id"]]["name"]
            assert box_set.classes[label] == name


def test_blood_cells(unpacked):
    (root,) = unpacked("bccd.tar").rglob("BCCD")
    box_set = load(root / "ImageSets" / "Main" / "trainval.txt")
    assert (len(box_set.pictures), counted(box_set)) == (292, 3941)
    assert box_set.classes == ("Platelets", "RBC", "WBC")
    assert rejected(box_set) == {Reject.DEGENERATE: 2}
    images = [name.partition(":")[0] for name in box_set.rejects[Reject.DEGENERATE]]
    assert images == ["BloodImage_00338.jpg", "BloodImage_00343.jpg"]


@pytest.mark.parametrize(
    ("part", "images", "boxes", "crowds"), [("train2017", 78, 744, 9), ("val2017", 47, 469, 7)]
)
def test_coco_itself(unpacked, part, images, boxes, crowds):
    root = unpacked("coco-mini-permissive.tar") / "coco-mini-permissive"
    box_set = load(root / "annotations" / f"instances_{part}.json")
    assert (len(box_set.pictures), len(box_set.classes), box_set.rejects) == (images, 80, {})
    assert sum(len(picture.boxes) for picture in box_set.pictures) == boxes
    assert counted(box_set) == boxes - crowds


def test_a_list_is_read_once_and_left_as_it_is(tmp_path, write):
    """Loading twice gives equal values: no parser keeps or changes what another one returned."""
    path = write(tmp_path, {"a": [("cat", (9, 9, 3, 12)), ("cat", BOX)], "gone": []})
    next(tmp_path.rglob("gone.jpg")).unlink()
    text = path.read_text()
    first = load(path)
    second = load(path)
    assert first.rejects == second.rejects
    assert len(first.rejects) == 2
    assert (first.digest, path.read_text()) == (second.digest, text)
    assert json.dumps(first.rejects) == json.dumps(second.rejects)
