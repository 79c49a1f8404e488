import json
import math
import multiprocessing
import pickle
import shutil
import numpy as np
import pytest
from made_images import image_bytes, populate
from pycocotools.coco import COCO
import shards
from shards import Reject, ShardError, scenes
from shards.boxes import load

WIDTH, HEIGHT, BOX = 20, 16, (2, 3, 9, 8)
IDS = {"dog": 3, "cat": 7}  # by id, the classes are not in the order of their names
SIZE = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
COCOS = ("annotations/instances_train2017.json", "train2017")
OBJECT = "<object><name> {} </name><difficult>{:d}</difficult><bndbox>{}</bndbox></object>"


def coco(root, things, path="set.json", images=".", **replaced):
    """A COCO JSON; ``things`` are (name, (left, top, right, bottom)[, ignored]) by the stem of their image."""
    populate(root / images, [f"{stem}.jpg" for stem in things])
    listed = [
        {"id": n, "file_name": f"{stem}.jpg", "width": WIDTH, "height": HEIGHT}
        for n, stem in enumerate(things, 10)
    ]
    annotations = [
        {
            "image_id": n,
            "category_id": IDS.get(name, 99),
            "bbox": [left, top, right - left, bottom - top],
            "iscrowd": int(any(ignored)),
        }
        for n, stem in enumerate(things, 10)
        for name, (left, top, right, bottom), *ignored in things[stem]
    ]
    categories = [{"id": number, "name": name} for name, number in reversed(IDS.items())]
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(
        json.dumps(
            {"images": listed, "categories": categories, "annotations": annotations} | replaced
        )
    )
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
            text += OBJECT.format(
                name, any(ignored), "".join(f"<{side}>{value}</{side}>" for side, value in sides)
            )
        (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{text}</annotation>")
    path = root / "ImageSets" / "Main" / "train.txt"
    path.write_text("".join(f"{stem}  1\n\n" for stem in things))
    return path


@pytest.fixture(params=[coco, voc])
def write(request):
    return request.param


def counted(found):
    return sum(int((~picture.ignored).sum()) for picture in found.pictures)


def rejected(found):
    return {reason: len(names) for reason, names in found.rejects.items()}


def test_images_boxes_and_classes(tmp_path, write):
    path = write(
        tmp_path,
        {"b": [("dog", (0, 0, 20, 16)), ("cat", (2.5, 3, 9.25, 8), True)], "a": [("dog", BOX)]},
    )
    if write is coco:
        assert '"bbox": [2.5, 3, 6.75, 5], "iscrowd": 1' in path.read_text()
    else:
        assert (
            "<xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>16</ymax>"
            in (tmp_path / "Annotations/b.xml").read_text()
        )
    found = load(str(path))
    assert (found.path, found.classes) == (
        path,
        ("dog", "cat") if write is coco else ("cat", "dog"),
    )
    assert (found.rejects, counted(found)) == ({}, 2)
    first, second = found.pictures
    folder = tmp_path if write is coco else tmp_path / "JPEGImages"
    assert (first.path, first.size, second.path) == (
        folder / "b.jpg",
        (WIDTH, HEIGHT),
        folder / "a.jpg",
    )
    assert first.boxes.tolist() == [[0, 0, 20, 16], [2.5, 3, 9.25, 8]]
    assert ([found.classes[label] for label in first.labels], first.ignored.tolist()) == (
        ["dog", "cat"],
        [False, True],
    )


def test_an_image_without_boxes_is_kept(tmp_path, write):
    empty, other = load(write(tmp_path, {"a": [], "b": [("cat", BOX)]})).pictures
    assert [values.shape for values in empty[2:6]] == [(0, 4), (0,), (0,), (0,)]
    dtypes = [np.float32, np.int64, np.bool_, np.bool_]
    assert (
        [values.dtype for values in empty[2:6]] == [values.dtype for values in other[2:6]] == dtypes
    )
    assert (empty.masks, other.masks) == ([], [[]])


def test_given_classes_fix_the_labels(tmp_path, write):
    path = write(tmp_path, {"a": [("dog", BOX), ("cat", (1, 1, 5, 5))]})
    found = load(path, classes=["eel", "cat", "dog"])
    assert (found.classes, found.pictures[0].labels.tolist(), found.rejects) == (
        ("eel", "cat", "dog"),
        [2, 1],
        {},
    )
    found = load(path, classes=["cat"])
    assert (found.classes, found.pictures[0].boxes.tolist(), found.pictures[0].labels.tolist()) == (
        ("cat",),
        [[1, 1, 5, 5]],
        [0],
    )
    assert found.rejects == {Reject.UNKNOWN_CATEGORY: ["a.jpg: dog [2.0, 3.0, 9.0, 8.0]"]}


def test_categories_and_images_that_coco_does_not_list(tmp_path):
    annotations = [
        {"image_id": image, "category_id": category, "bbox": [2, 3, 7, 5]}
        for image, category in ((10, 99), (55, 7), (10, 7))
    ]
    found = load(coco(tmp_path, {"a": []}, annotations=annotations))
    assert (
        found.classes,
        found.pictures[0].labels.tolist(),
        found.pictures[0].ignored.tolist(),
    ) == (("dog", "cat"), [1], [False])
    assert found.rejects[Reject.UNKNOWN_IMAGE] == ["image 55: cat"]
    assert rejected(found) == {Reject.UNKNOWN_IMAGE: 1, Reject.UNKNOWN_CATEGORY: 1}


def test_boxes_are_cut_at_the_border(tmp_path, write):
    boxes = [(-4, -5, 7, 6), (15, 9, 22, 21), (-3, 2, 30, 5), (18, 2, 20, 5)]
    found = load(write(tmp_path, {"a": [("cat", box) for box in boxes]}))
    assert found.pictures[0].boxes.tolist() == [
        [0, 0, 7, 6],
        [15, 9, 20, 16],
        [0, 2, 20, 5],
        [18, 2, 20, 5],
    ]
    assert found.rejects == {}


def test_boxes_beside_the_image_are_rejected(tmp_path, write):
    boxes = [(-9, 3, 0, 8), (20, 3, 29, 8), (2, -9, 9, 0), (2, 16, 9, 18)]
    found = load(write(tmp_path, {"a": [("cat", box) for box in boxes]}))
    assert (rejected(found), found.pictures[0].boxes.shape) == ({Reject.OUTSIDE: 4}, (0, 4))


def test_boxes_without_area_in_coco(tmp_path):
    bad = [
        [2, 3, 0, 5],
        [2, 3, -7, 5],
        [2, 3, 7, 0],
        [2, 3, 7, -1],
        [math.nan, 3, 7, 5],
        [2, 3, 7, math.nan],
        [2, 3, math.inf, 5],
    ]
    bad += [
        [2, 3, 7, math.inf],
        [-math.inf, 3, 7, 5],
        [2, 3, 7],
        [],
        [2, 3, 7, 5, 1],
        [2, 3, "wide", 5],
        None,
        [10**400, 3, 7, 5],
    ]
    bad += [[15, 3, 1e-7, 5], [19.9999, 3, 7, 1e-9]]
    annotations = [
        {"image_id": 10, "category_id": 7, "bbox": bbox} for bbox in (*bad, [2, 3, 7, 5])
    ]
    found = load(coco(tmp_path, {"a": []}, annotations=annotations))
    assert (found.pictures[0].boxes.tolist(), rejected(found)) == (
        [[2, 3, 9, 8]],
        {Reject.DEGENERATE: len(bad)},
    )


def test_boxes_without_area_in_voc(tmp_path):
    bad = [
        (2, 3, 3, 8),
        (2, 3, 2, 8),
        (2, 3, 1, 8),
        (2, 3, 9, 4),
        (2, 3, 9, 3),
        (2, math.nan, 9, 8),
        (2, 3, 9, math.nan),
    ]
    bad += [
        (-math.inf, 3, 9, 8),
        (2, 3, math.inf, 8),
        (2, 3, 9, math.inf),
        (2, 3, "x", 8),
        (2, 3, "", 8),
        (2, 3, 9),
        (2, 3),
    ]
    found = load(voc(tmp_path, {"a": [("cat", box) for box in (*bad, BOX)]}))
    assert (found.pictures[0].boxes.tolist(), rejected(found)) == (
        [[2, 3, 9, 8]],
        {Reject.DEGENERATE: len(bad)},
    )


@pytest.mark.parametrize("seed", range(3))
def test_every_box_is_kept_or_rejected(tmp_path, write, seed):
    rng, want, kept, things = np.random.default_rng(seed), dict.fromkeys(Reject, 0), [], {}
    for n in range(5):
        things[f"{n}"] = []
        for left, top, width, height in rng.integers(
            (-8, -8, -3, -3), (24, 20, 16, 16), (30, 4)
        ).tolist():
            name, ignored, right, bottom = (
                str(rng.choice(["cat", "dog", "eel"])),
                bool(rng.integers(2)),
                left + width,
                top + height,
            )
            things[f"{n}"].append((name, (left, top, right, bottom), ignored))
            columns, rows = (
                [x for x in range(left, right) if 0 <= x < WIDTH],
                [y for y in range(top, bottom) if 0 <= y < HEIGHT],
            )
            if name == "eel":
                want[Reject.UNKNOWN_CATEGORY] += 1
            elif min(width, height) <= (write is voc):  # VOC's xmin == xmax has no area
                want[Reject.DEGENERATE] += 1
            elif not columns or not rows:
                want[Reject.OUTSIDE] += 1
            else:
                kept.append(
                    [
                        n,
                        columns[0],
                        rows[0],
                        columns[-1] + 1,
                        rows[-1] + 1,
                        ["cat", "dog"].index(name),
                        ignored,
                    ]
                )
    found = load(write(tmp_path, things), classes=["cat", "dog"])
    assert [
        [n, *box, *rest]
        for n, p in enumerate(found.pictures)
        for box, *rest in zip(*map(np.ndarray.tolist, (*p[2:4], p.ignored)), strict=True)
    ] == kept
    assert rejected(found) == {reason: count for reason, count in want.items() if count}
    assert len(rejected(found)) == 3
    assert len(kept) + sum(rejected(found).values()) == 5 * 30


def test_missing_images(tmp_path, write):
    path = write(tmp_path, {"a": [("cat", BOX)], "b": [("cat", BOX)]})
    next(tmp_path.rglob("a.jpg")).unlink()
    found = load(path)
    assert [picture.path.name for picture in found.pictures] == ["b.jpg"]
    assert found.rejects == {Reject.NO_IMAGE: ["a.jpg" if write is coco else "a"]}
    next(tmp_path.rglob("b.jpg")).unlink()
    with pytest.raises(
        ShardError,
        match=rf"no image that {path} lists is there \(2 entries left out.*check the layout",
    ):
        load(path)


def test_missing_and_broken_voc_annotations(tmp_path):
    path = voc(tmp_path, {stem: [("cat", BOX)] for stem in "abcde"})
    (tmp_path / "Annotations" / "a.xml").unlink()
    (tmp_path / "Annotations" / "b.xml").write_text("<annotation><object>")
    (tmp_path / "Annotations" / "c.xml").write_text(
        f"<annotation>{SIZE.replace('16', 'many')}</annotation>"
    )
    (tmp_path / "Annotations" / "d.xml").write_text(
        '<?xml version="1.0" encoding="foo"?><annotation/>'
    )
    found = load(path)
    broken = {Reject.NO_ANNOTATION: ["a", "b", "c", "d"]}
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
        assert counted(load(path.name)) == 1


def test_voc_images_of_another_name(tmp_path):
    assert (
        load(voc(tmp_path, {"a": []}, file="other.png")).pictures[0].path
        == tmp_path / "JPEGImages" / "other.png"
    )


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>"])
def test_a_voc_annotation_without_size_takes_the_images(tmp_path, size):
    path = voc(tmp_path, {"a": [("cat", (15, 9, 40, 40))], "b": []}, size)
    (tmp_path / "JPEGImages" / "b.jpg").write_bytes(b"no image")
    found = load(path)
    assert [(picture.size, picture.boxes.tolist()) for picture in found.pictures] == [
        ((WIDTH, HEIGHT), [[15, 9, 20, 16]])
    ]
    assert found.rejects == {Reject.NO_IMAGE: ["b"]}


@pytest.mark.parametrize(
    ("path", "images"), [("annotations.json", "."), ("annotations.json", "images"), COCOS]
)
def test_where_cocos_images_are_looked_for(tmp_path, path, images):
    path = coco(tmp_path, {"deep/a": [("cat", BOX)]}, path, images)
    found = load(tmp_path if path.name == "annotations.json" else path)
    assert (found.path, [picture.path for picture in found.pictures]) == (
        path,
        [tmp_path / images / "deep/a.jpg"],
    )


def test_the_digest_follows_boxes_classes_and_images_alone(tmp_path, write):
    def digest(folder, things, classes=("cat", "dog")):
        return load(write(tmp_path / folder, {"x": things, "y": []}), classes=classes).digest

    cat, dog = ("cat", BOX), ("dog", (1, 1, 5, 5))
    first = digest("a", [cat, dog])
    others = [
        [cat, ("dog", (1, 1, 5, 6))],
        [cat, ("cat", (1, 1, 5, 5))],
        [cat, (*dog, True)],
        [cat],
    ]
    digests = {first, *(digest(f"{n}", things) for n, things in enumerate(others))}
    digests |= {
        digest("a", [cat, dog], classes) for classes in (["dog", "cat"], ["cat", "dog", "eel"])
    }
    moved = write(tmp_path / "moved", {"x": [cat, dog], "y": []})
    assert load(moved, classes=["cat", "dog"]).digest == first
    image = next((tmp_path / "moved").rglob("x.jpg"))
    for end in (b"?", b"??"):  # the size of the file counts, not its bytes
        image.write_bytes(image.read_bytes()[:-1] + end)
        digests.add(load(moved, classes=["cat", "dog"]).digest)
    assert len(digests) == 1 + len(others) + 2 + 1


def test_the_digest_follows_the_annotated_size_and_not_how_it_is_written(tmp_path):
    sizes = [SIZE, SIZE.replace("20", "21"), SIZE.replace("16", "17")]
    assert (
        len({load(voc(tmp_path / f"{n}", {"x": []}, size)).digest for n, size in enumerate(sizes)})
        == 3
    )
    path = coco(tmp_path / "coco", {"x": [("cat", BOX)]})
    first = load(path).digest
    path.write_text(json.dumps({"info": "new"} | json.loads(path.read_text()), indent=4))
    moved = shutil.copytree(path.parent, tmp_path / "moved") / path.name
    assert load(path).digest == load(moved).digest == first


def test_what_is_no_list_of_boxes_is_one_clear_line(tmp_path):
    odd = [
        "[]",
        "{}",
        '{"images": [], "categories": [], "annotations": 3}',
        '{"images": [{"id": 1}], "categories": [], "annotations": []}',
    ]
    for name, text in (
        ("notes.md", "x"),
        ("broken.json", "{"),
        *((f"{n}.json", text) for n, text in enumerate(odd)),
    ):
        (tmp_path / name).write_text(text)
    voc(tmp_path / "VOC", {"a": []}).with_name("val.txt").write_text("")
    for name, got in (
        *(
            (name, "wanted a COCO JSON or a VOC list .*; check the path")
            for name in ("missing", "missing.json", "notes.md")
        ),
        (
            "VOC",
            "name one of its lists: .*VOC/ImageSets/Main/train.txt, .*VOC/ImageSets/Main/val.txt",
        ),
        ("broken.json", "cannot be read as JSON"),
        *((f"{n}.json", "is no COCO instances file") for n in range(len(odd))),
    ):
        with pytest.raises(ShardError, match=got) as error:
            load(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_picture_decodes_as_annotated_or_not_at_all(tmp_path, write):
    found = load(write(tmp_path, {"a": []}))
    picture = found.pictures[0]
    assert (found.image(0).size, found.image(0).mode) == ((WIDTH, HEIGHT), "RGB")
    for data, got in (
        (image_bytes(size=(16, 20)), "16 × 20 pixels, its annotation says 20 × 16"),
        (b"no image", "not an image"),
    ):
        picture.path.write_bytes(data)
        with pytest.raises(ShardError, match=rf"{picture.path}.*{got}"):
            found.image(0)
    picture.path.unlink()
    with pytest.raises(ShardError, match=rf"cannot read {picture.path}: No such file"):
        found.image(0)


MASKS = [
    [[2, 3, 9, 3, 9, 8.5], [1, 1, 5, 1, 5, 5, 1, 5]],
    {"size": [16, 20], "counts": [30, 5, 285]},
    {"size": [16, 20], "counts": "abc"},
    None,
    [],
    [[2, 3, 9, 3], [2, 3], [], 7, "23456789", ["a"] * 6, [1, 1, 5, 1, 5, math.nan]],
    [[2, 3, 9, 3], [2, 3, 9, 3, 9, 8]],
    "mask",
    {"counts": [320]},
]
KEPT = [*MASKS[:3], [], [], [], [[2, 3, 9, 3, 9, 8]], [], []]


def masked(root, **more):
    """A COCO JSON of one image with a box for every mask, and one without any."""
    annotations = [
        {"id": n, "image_id": 10, "category_id": 7, "bbox": [2, 3, 7, 5], "segmentation": m}
        for n, m in enumerate(MASKS, 1)
    ]
    return coco(
        root,
        {"a": []},
        annotations=[
            *annotations,
            {"id": 99, "image_id": 10, "category_id": 3, "bbox": [1, 1, 5, 5]},
        ],
        **more,
    )


def test_masks_are_kept_as_they_are_written(tmp_path):
    found = load(masked(tmp_path))
    assert found.pictures[0].masks == [*KEPT, []]
    assert (found.voc, found.rejects) == (False, {})
    assert load(masked(tmp_path), classes=["dog"]).pictures[0].masks == [[]]


def test_difficult_objects_are_vocs_and_crowds_are_cocos(tmp_path, write):
    found = load(write(tmp_path, {"a": [("dog", BOX), ("cat", BOX, True)]}))
    (picture,), flags = found.pictures, ([False, False], [False, True])
    assert (picture.difficult.tolist(), picture.crowd.tolist()) == (
        flags if write is coco else flags[::-1]
    )
    assert (picture.ignored.tolist(), found.voc, counted(found)) == ([False, True], write is voc, 1)


def test_the_digest_follows_masks_and_tells_difficult_from_crowd(tmp_path):
    path = masked(tmp_path)
    digests = [load(path).digest]
    for old, new in (
        ("8.5", "8.25"),
        ("[30, 5, 285]", "[30, 6, 284]"),
        ('"bbox"', '"iscrowd": 1, "bbox"'),
    ):
        path.write_text(path.read_text().replace(old, new))
        digests.append(load(path).digest)
    for old, new in (("iscrowd", "difficult"), ('{"images"', '{"voc": true, "images"')):
        path.write_text(path.read_text().replace(old, new))
        digests.append(load(path).digest)
    assert len({*digests}) == 5
    assert digests[4] == digests[2]  # COCO's format knows no difficult objects


# in a shard set

ODD = [
    ("eel", BOX),
    ("cat", (9, 9, 3, 12)),
    ("dog", (25, 3, 29, 8)),
    ("cat", (-4, 2, 30, 5), True),
    ("dog", (2.5, 3, 9.25, 8)),
]


def same(one, other):
    """Everything that is not where the images are, and their pixels."""
    assert (one.classes, one.voc, one.digest, one.rejects) == (
        other.classes,
        other.voc,
        other.digest,
        other.rejects,
    )
    assert len(one.pictures) == len(other.pictures)
    for number, (a, b) in enumerate(zip(one.pictures, other.pictures, strict=True)):
        assert (a.path.name, a.size, a.masks) == (b.path.name, b.size, b.masks)
        for x, y in zip(a[2:6], b[2:6], strict=True):
            assert x.dtype == y.dtype
            assert np.array_equal(x, y)
        assert np.array_equal(np.asarray(one.image(number)), np.asarray(other.image(number)))


@pytest.mark.parametrize("kind", ["path", "URL"])
def test_a_shard_set_gives_the_same(tmp_path, write, kind, monkeypatch):
    monkeypatch.setenv("CARE_CACHE", str(tmp_path / "cache"))
    things = {
        "b": ODD,
        "a.b": [],
        "c": [("cat", BOX), ("dog", BOX, True)],
        "gone": [("cat", BOX)],
        **{f"{n}": ODD[:n] for n in range(5)},
    }
    path, dest = (
        write(tmp_path / "data", things),
        str(tmp_path / "set") if kind == "path" else f"file://{tmp_path}/set",
    )
    next(tmp_path.rglob("gone.jpg")).unlink()
    (tmp_path / "set" / ".lease").mkdir(parents=True)  # a store of URLs makes no folders
    shards.build(path, dest, shard_size=3, max_rejects=0.2)
    found = load(dest)
    same(found, load(path))
    assert [picture.path.name for picture in found.pictures] != [
        f"{key}.jpg" for key in shards.open(dest).keys
    ]  # its order is drawn
    assert len(found.rejects) == 3 + (write is coco)  # VOC's eels are a class
    assert str(found.path).endswith("set")
    for classes in (["dog"], ["eel", "cat", "dog"]):
        same(load(dest, classes=classes), load(path, classes=classes))
    assert shards.verify(dest) == []


def test_cocos_oddities_survive_in_a_set(tmp_path):
    """Masks, category numbers that are not listed, boxes of no image, a file that is listed twice, folders, what is no number."""
    images = [
        {"id": n, "file_name": name, "width": WIDTH, "height": HEIGHT}
        for n, name in ((10, "x/a.jpg"), ("s", "y/a.jpg"), (3, "x/a.jpg"))
    ]
    more = [
        (10, 99, BOX),
        (55, 7, BOX),
        (3, 3, (1, 1, 5, 5)),
        ("s", 7, [math.nan, 1, 2, 3]),
        ("s", 7, [1, 2]),
        ("s", 7, None),
    ]
    path = masked(tmp_path / "data", info={"year": 2017})
    content = json.loads(path.read_text()) | {"images": images}
    content["annotations"] += [
        {"id": 100 + n, "image_id": i, "category_id": c, "bbox": box}
        for n, (i, c, box) in enumerate(more)
    ]
    path.write_text(json.dumps(content))
    populate(path.parent, ["x/a.jpg", "y/a.jpg"])
    shards.build(path, tmp_path / "set", max_rejects=0.5)
    found = load(tmp_path / "set")
    same(found, load(path))
    assert [len(picture.boxes) for picture in found.pictures] == [len(MASKS) + 1, 0, 1]
    assert rejected(found) == {
        Reject.UNKNOWN_IMAGE: 1,
        Reject.UNKNOWN_CATEGORY: 1,
        Reject.DEGENERATE: 3,
    }
    kept = json.loads((tmp_path / "set" / "annotations.json").read_text())
    assert kept["info"] == {"year": 2017}
    assert [(image["key"], image["file_name"]) for image in kept["images"]] == [
        (f"{n}/a", f"{n}/a.jpg") for n in "xyx"
    ]


def test_images_that_a_build_leaves_out_are_listed_and_those_of_another_share_are_not(
    tmp_path, write
):
    things = {f"{n}": [("cat", BOX)] for n in range(12)}
    path = write(tmp_path / "data", things)
    next(tmp_path.rglob("7.jpg")).write_bytes(image_bytes(format="JPEG")[:300])
    assert shards.build(path, tmp_path / "set", max_rejects=0.1).rejects == {
        "corrupt image": ["7.jpg"]
    }
    found, direct = load(tmp_path / "set"), load(path)
    assert found.rejects == {Reject.NO_IMAGE: ["7.jpg"]}
    assert [p.path.name for p in found.pictures] == [
        p.path.name for p in direct.pictures if p.path.name != "7.jpg"
    ]
    parts = []
    for share in ((0, 0.5), (0.5, 1)):
        shards.build(path, tmp_path / f"{share}", share=share, max_rejects=0.5)
        parts.append(load(tmp_path / f"{share}"))
    names = [{p.path.stem for p in part.pictures} for part in parts]
    assert min(map(len, names)) > 0
    assert (names[0] | names[1], names[0] & names[1]) == ({*things} - {"7"}, set())
    assert sum(len(part.rejects) for part in parts) == 1
    assert sum(map(counted, parts)) == 11


def images_of(data, numbers):
    return [data.image(number).tobytes() for number in numbers]


def test_a_box_set_can_be_pickled_and_forked(tmp_path, write):
    path = write(tmp_path / "data", {f"{n}": [("cat", BOX)] for n in range(6)})
    shards.build(path, tmp_path / "set", shard_size=4)
    want = images_of(load(path), range(6))
    for data in (load(path), load(tmp_path / "set")):
        copy = pickle.loads(pickle.dumps(data))
        assert images_of(copy, range(6)) == want
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert [
                image for (image,) in pool.starmap(images_of, [(data, [n]) for n in range(6)])
            ] == want


def test_an_annotated_set_that_is_damaged_or_has_no_boxes_is_told(tmp_path, photos):
    shards.build(coco(tmp_path / "data", {"a": [("cat", BOX)]}), tmp_path / "set")
    file = tmp_path / "set" / "annotations.json"
    text = file.read_text()
    file.write_text(text.replace("cat", "cow"))
    with pytest.raises(
        ShardError, match=r"annotations\.json is not the file that was written; copy the set again"
    ):
        load(tmp_path / "set")
    assert "annotations.json is not the file that was written" in shards.verify(tmp_path / "set")[0]
    file.write_text(text)
    assert load(tmp_path / "set").image(0).size == (WIDTH, HEIGHT)
    file.unlink()
    assert "annotations.json" in shards.verify(tmp_path / "set")[0]
    shards.build(photos, tmp_path / "plain")
    for name in ("set", "plain"):
        with pytest.raises(
            ShardError,
            match=r"wanted a COCO JSON or a VOC list .*, or shards of one; check the path",
        ):
            load(tmp_path / name)


def test_a_set_of_another_annotated_size_or_with_damaged_shards_names_the_image(tmp_path):
    path = coco(tmp_path / "data", {"a": [], "b": []})
    path.write_text(path.read_text().replace('"width": 20', '"width": 21', 1))
    shards.build(path, tmp_path / "set")
    found = load(tmp_path / "set")
    with pytest.raises(
        ShardError, match=r"set/a\.jpg has 20 × 16 pixels, its annotation says 21 × 16"
    ):
        found.image(0)
    assert found.image(1).size == (WIDTH, HEIGHT)
    tar = tmp_path / "set" / "shard-000000.tar"
    tar.write_bytes(bytes(tar.stat().st_size))
    with pytest.raises(
        ShardError, match=r"cannot read .*set/b\.jpg: sample \d \('b'\) of .* is damaged"
    ):
        found.image(1)


def test_pycocotools_reads_the_same(tmp_path):
    scenes.write(tmp_path / "scenes", count=24)
    found, reference = load(tmp_path / "scenes"), COCO(tmp_path / "scenes" / "annotations.json")
    assert (len(found.pictures), found.classes, found.rejects) == (24, scenes.CLASSES, {})
    for number, picture in zip(reference.getImgIds(), found.pictures, strict=True):
        assert picture.path == tmp_path / "scenes" / "images" / reference.imgs[number]["file_name"]
        annotations = reference.loadAnns(reference.getAnnIds(number))
        assert picture.boxes.tolist() == [
            [x, y, x + w, y + h] for x, y, w, h in (one["bbox"] for one in annotations)
        ]
        assert [found.classes[label] for label in picture.labels] == [
            reference.cats[one["category_id"]]["name"] for one in annotations
        ]


def test_blood_cells(unpacked):
    (root,) = unpacked("bccd.tar").rglob("BCCD")
    found = load(root / "ImageSets" / "Main" / "trainval.txt")
    assert (len(found.pictures), counted(found), found.classes) == (
        292,
        3941,
        ("Platelets", "RBC", "WBC"),
    )
    assert rejected(found) == {Reject.DEGENERATE: 2}
    assert [name.partition(":")[0] for name in found.rejects[Reject.DEGENERATE]] == [
        "BloodImage_00338.jpg",
        "BloodImage_00343.jpg",
    ]


def test_coco_itself(unpacked):
    root = unpacked("coco-mini-permissive.tar") / "coco-mini-permissive"
    for name, images, boxes, crowds in (("train2017", 78, 744, 9), ("val2017", 47, 469, 7)):
        found = load(root / "annotations" / f"instances_{name}.json")
        assert (
            len(found.pictures),
            sum(len(picture.boxes) for picture in found.pictures),
            found.rejects,
        ) == (images, boxes, {})
        assert (counted(found), len(found.classes)) == (boxes - crowds, 80)


@pytest.mark.parametrize(
    ("tar", "inside"),
    [("bccd.tar", "BCCD/ImageSets/Main/test.txt"), ("coco-mini-permissive.tar", COCOS[0])],
)
def test_real_sets_in_shards(unpacked, tmp_path, tar, inside):
    (path,) = unpacked(tar).rglob(inside)
    shards.build(path, tmp_path / "set")
    found = load(tmp_path / "set")
    same(found, load(path))
    if not found.voc:
        content = json.loads(path.read_text())
        by_image = {
            image["id"]: [
                one["segmentation"]
                for one in content["annotations"]
                if one["image_id"] == image["id"]
            ]
            for image in content["images"]
        }
        assert [picture.masks for picture in found.pictures] == list(by_image.values())
        assert any(isinstance(mask, dict) for picture in found.pictures for mask in picture.masks)
    reference = COCO(
        tmp_path / "set" / "annotations.json"
    )  # the file is COCO's own format, VOC's too
    assert len(reference.getAnnIds()) == sum(
        len(picture.boxes) for picture in found.pictures
    ) + sum(map(len, found.rejects.values()))
