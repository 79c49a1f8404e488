"""Images whose pixels have classes: of palettes, ids, colours and gray values, and of objects."""

import json
from pathlib import Path
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
import shards
from shards import scenes, segmentation
from shards.errors import ShardError
from shards.label_files import palette, plain_coding, read_labels
from shards.segmentation import VOC_CLASSES, load


def photo(path: Path, size=(6, 4), colour=(90, 60, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def mask(path: Path, values, mode="L") -> Path:
    """Values [h, w] as a file of a mode; of P with VOC's palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.array(values)
    if mode == "P":
        image = Image.fromarray(values.astype(np.uint8), "P")
        image.putpalette(palette(256).tobytes())
    elif mode == "RGB":
        image = Image.fromarray(np.append(palette(255), [[224, 224, 192]], 0)[values].astype("u1"))
    elif mode == "1":
        image = Image.fromarray(values.astype(bool))
    else:
        image = Image.fromarray(values.astype(np.uint16 if mode == "I;16" else np.uint8))
    image.save(path)
    return path


def some(*values):
    """A mask of 4 × 6 pixels that has these values."""
    return np.resize(values, (4, 6))


def voc(root: Path, mode="P") -> Path:
    for number, name in enumerate(("a_1", "b_2", "c_3")):
        photo(root / f"JPEGImages/{name}.jpg")
        photo(root / f"JPEGImages/other{name}.jpg")
        mask(root / f"SegmentationClass/{name}.png", some(0, 20 - number, 255), mode)
        mask(root / f"SegmentationObject/{name}.png", some(0, 1, 255), mode)
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a_1\nb_2\n\n")
    (lists / "val.txt").write_text("c_3\nmissing\nothera_1\n")
    return lists


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_list_of_voc_has_palettes_gray_values_or_colours(tmp_path, mode) -> None:
    lists = voc(tmp_path, mode)
    train = load(lists / "train.txt")
    assert train.classes == VOC_CLASSES
    assert train.keys == ("a_1", "b_2")
    image, labels = train.sample(1)
    assert image.size == (6, 4)
    assert labels.dtype == np.uint8
    assert (labels == some(0, 19, 255)).all()
    val = load(lists / "val.txt", classes=train.classes)
    assert val.keys == ("c_3",)
    assert val.rejects == {
        "image missing or broken": ["missing"],
        "annotation file missing or broken": ["othera_1"],
    }


def test_names_of_an_augmented_list_are_looked_for_in_its_own_masks(tmp_path) -> None:
    lists = voc(tmp_path)
    (lists / "trainaug.txt").write_text("a_1\nothera_1\n")
    for name in ("a_1", "othera_1"):
        mask(tmp_path / f"SegmentationClassAug/{name}.png", some(0, 3))
    augmented = load(lists / "trainaug.txt")
    assert augmented.keys == ("a_1", "othera_1")
    assert (augmented.images.labels(0) == some(0, 3)).all()
    assert (load(lists / "train.txt").images.labels(0) == some(0, 20, 255)).all()


def test_a_list_may_have_an_image_and_its_mask_in_each_line(tmp_path) -> None:
    photo(tmp_path / "JPEGImages/a.jpg")
    mask(tmp_path / "anywhere/a.png", some(0, 2))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/train.txt").write_text("/JPEGImages/a.jpg /anywhere/a.png\nb.jpg b.png\n")
    data = load(tmp_path / "lists/train.txt")
    assert data.keys == ("JPEGImages/a.jpg",)
    assert data.classes == ("background", "class 1", "class 2")
    assert data.rejects == {"image missing or broken": ["b.jpg"]}


def test_cityscapes_ids_become_its_nineteen_classes(tmp_path) -> None:
    for city, number in (("ulm", 0), ("bonn", 1)):
        stem = f"{city}/{city}_000000_{number:06d}"
        photo(tmp_path / f"leftImg8bit/train/{stem}_leftImg8bit.png")
        ids = mask(tmp_path / f"gtFine/train/{stem}_gtFine_labelIds.png", some(7, 8, 33, 3, 0, 26))
        mask(ids.with_name(ids.name.replace("labelIds", "instanceIds")), some(26001), "I;16")
        mask(ids.with_name(ids.name.replace("labelIds", "color")), some(1), "RGB")
    data = load(tmp_path / "leftImg8bit/train")
    assert data.cityscapes
    assert data.keys[0].startswith("bonn/")
    assert len(data.keys) == 2
    assert len(data.classes) == 19
    assert (data.classes[0], data.classes[13], data.classes[18]) == ("road", "car", "bicycle")
    assert (data.images.labels(0) == some(0, 1, 18, 255, 255, 13)).all()
    assert data.rejects == {}


LAYOUTS = [
    ("images/{}.jpg", "masks/{}.png", ""),
    ("images/{}.jpg", "masks/{}_mask.png", ""),
    ("JPEGImages/{}.jpg", "SegmentationClassPNG/{}.png", ""),
    ("images/train/{}.png", "annotations/train/{}.png", "images/train"),
    ("img_dir/train/{}.jpg", "ann_dir/train/{}.png", "img_dir/train"),
    ("{}.jpg", "{}.png", ""),
    ("{}.png", "{}_mask.png", ""),
    ("{}.png", "{}_L.png", ""),
]


@pytest.mark.parametrize(("images", "masks", "asked_for"), LAYOUTS)
def test_folders_of_images_and_masks(tmp_path, images, masks, asked_for) -> None:
    for number, name in enumerate(("one", "two_L", "three")):
        photo(tmp_path / images.format(name))
        mask(tmp_path / masks.format(name), some(0, number + 1))
    photo(tmp_path / images.format("alone"))
    (tmp_path / "classes.txt").write_text("ground\nant\nbee\ncat\n")
    data = load(tmp_path / asked_for)
    assert data.classes == ("ground", "ant", "bee", "cat")
    assert [Path(key).stem for key in data.keys] == ["one", "three", "two_L"]
    assert [int(data.images.labels(n).max()) for n in range(3)] == [1, 3, 2]
    (names,) = data.rejects.values()
    assert [Path(name).stem for name in names] == ["alone"]


def test_a_mask_without_an_image_is_listed(tmp_path) -> None:
    photo(tmp_path / "images/a.jpg")
    mask(tmp_path / "masks/a.png", some(0, 1))
    mask(tmp_path / "masks/b.png", some(0, 1))
    assert load(tmp_path).rejects == {"image missing or broken": ["b.png"]}


def test_black_and_white_masks_are_an_object_on_its_background(tmp_path) -> None:
    for name, values in (("a", some(0, 255)), ("b", some(0))):
        photo(tmp_path / f"images/{name}.jpg")
        mask(tmp_path / f"masks/{name}.png", values)
    data = load(tmp_path)
    assert data.classes == ("background", "object")
    assert (data.images.labels(0) == some(0, 1)).all()
    assert (data.images.labels(1) == 0).all()


def test_masks_of_one_bit_have_two_classes(tmp_path) -> None:
    photo(tmp_path / "images/a.jpg")
    mask(tmp_path / "masks/a.png", some(0, 1), "1")
    assert (load(tmp_path).images.labels(0) == some(0, 1)).all()


def test_a_map_of_colours_says_the_classes(tmp_path) -> None:
    photo(tmp_path / "JPEGImages/a.jpg")
    colours = np.array([(0, 0, 0), (9, 8, 7), (200, 200, 200), (1, 2, 3)], np.uint8)
    path = tmp_path / "SegmentationClass/a.png"
    path.parent.mkdir()
    Image.fromarray(colours[some(0, 1, 2, 3)]).save(path)
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroof:9,8,7::\n"
        "void:200,200,200::\nroad:1,2,3::\n"
    )
    data = load(tmp_path)
    assert data.classes == ("background", "roof", "road")
    assert (data.images.labels(0) == some(0, 1, 255, 2)).all()


@pytest.mark.parametrize(
    ("text", "classes", "wanted"),
    [
        ("0 sky\n2 sea\n5 land\n", ("sky", "sea", "land"), (0, 1, 2, 255)),
        ("__ignore__\nsky\nx\nsea\ny\nz\nland\n", ("sky", "x", "sea", "y", "z", "land"), (0, 2, 5)),
        ("void\nx\nsky\ny\nz\nsea\n", ("x", "sky", "y", "z", "sea"), (255, 1, 4, 255)),
    ],
)
def test_a_file_says_the_names_of_the_values(tmp_path, text, classes, wanted) -> None:
    photo(tmp_path / "images/a.jpg")
    values = (0, 2, 5, 255)[: len(wanted)]
    mask(tmp_path / "masks/a.png", some(*values))
    (tmp_path / "classes.txt").write_text(text)
    data = load(tmp_path)
    assert data.classes == classes
    assert (data.images.labels(0) == some(*wanted)).all()


def test_classes_of_val_have_the_numbers_of_train(tmp_path) -> None:
    for part, names in (("train", "sky\nsea\nland\n"), ("val", "land\nsky\n")):
        photo(tmp_path / part / "images/a.jpg")
        mask(tmp_path / part / "masks/a.png", some(0, 1))
        (tmp_path / part / "classes.txt").write_text(names)
    train = load(tmp_path / "train")
    val = load(tmp_path / "val", classes=train.classes)
    assert val.classes == train.classes
    assert (val.images.labels(0) == some(2, 0)).all()
    with pytest.raises(ShardError, match="wanted classes that are learned, which are land, sky"):
        load(tmp_path / "train", classes=load(tmp_path / "val").classes)


def test_digests_tell_pixels_and_classes_apart_and_no_places(tmp_path) -> None:
    def digest(name, values=(0, 1), names="a\nb\n", colour=(1, 2, 3)):
        photo(tmp_path / name / "images/a.png", colour=colour)
        mask(tmp_path / name / "masks/a.png", some(*values))
        (tmp_path / name / "classes.txt").write_text(names)
        return load(tmp_path / name).digest

    first = digest("first")
    assert digest("second") == first
    others = [digest("3", (1, 0)), digest("4", names="a\nc\n"), digest("5", colour=(1, 2, 4))]
    assert len({first, *others}) == 4


def test_what_is_no_file_of_labels_is_told(tmp_path) -> None:
    def read(path, classes=3):
        return read_labels(path.read_bytes(), plain_coding(classes), path.name)

    with pytest.raises(ShardError, match=r"a\.png has the value 7, which means none of the 3 cla"):
        read(mask(tmp_path / "a.png", some(0, 7)))
    with pytest.raises(ShardError, match=r"b\.png has the colour #010203, which means none of"):
        read(photo(tmp_path / "b.png", colour=(1, 2, 3)))
    with pytest.raises(ShardError, match=r"c\.jpg, .* got a JPEG, whose values are not those"):
        read(photo(tmp_path / "c.jpg"))
    with pytest.raises(ShardError, match=r"from 0 to 26001: are these the numbers of objects"):
        read(mask(tmp_path / "d.png", some(0, 26001), "I;16"))
    (tmp_path / "e.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(ShardError, match=r"wanted a class for each pixel in e\.png"):
        read(tmp_path / "e.png")
    photo(tmp_path / "set/images/a.jpg")
    photo(tmp_path / "set/masks/a.png", colour=(1, 2, 3))
    with pytest.raises(ShardError, match=r"none of Pascal VOC's palette; put a labelmap\.txt"):
        load(tmp_path / "set")


def test_an_image_and_a_mask_of_other_sizes_are_told_by_name(tmp_path) -> None:
    photo(tmp_path / "images/a.jpg", (8, 4))
    mask(tmp_path / "masks/a.png", some(0, 1))
    with pytest.raises(ShardError, match=r"a\.jpg of .* has 8 × 4 pixels, its labels have 6 × 4"):
        load(tmp_path).sample(0)


def test_what_has_no_classes_of_pixels_is_told(tmp_path) -> None:
    photo(tmp_path / "photos/ant/a.jpg")
    photo(tmp_path / "photos/bee/b.jpg")
    shards.build(tmp_path / "photos", tmp_path / "set", workers=1)
    hints = {"photos": "check the path", "set": "a shard set has classes", "no": "check the path"}
    for place, hint in hints.items():
        with pytest.raises(ShardError, match=f"a class for each of their pixels: .*; {hint}"):
            load(tmp_path / place)
    photo(tmp_path / "both/part/images/a.jpg")
    mask(tmp_path / "both/part/masks/a.png", some(0, 1))
    with pytest.raises(ShardError, match=r"; name one of \S*both/part$"):
        load(tmp_path / "both")
    (tmp_path / "photos/train.txt").write_text("a\n")
    with pytest.raises(ShardError, match="a folder SegmentationClass or masks above it, got"):
        load(tmp_path / "photos/train.txt")


def test_objects_of_coco_are_classes_in_files_and_in_sets(tmp_path) -> None:
    scenes.write(tmp_path / "scenes", count=4, size=32, seed=3)
    shards.build(tmp_path / "scenes", tmp_path / "set", workers=1)
    data = load(tmp_path / "scenes")
    assert data.classes == ("background", *scenes.CLASSES)
    in_set = load(tmp_path / "set", classes=data.classes)
    order = {key.rpartition("/")[2]: number for number, key in enumerate(in_set.keys)}
    for number, key in enumerate(data.keys):
        scene = scenes.render(3, int(Path(key).stem), size=32)
        wanted = np.zeros((32, 32), np.uint8)
        for item in scene.objects:
            wanted[item.mask] = item.label + 1
        image, labels = data.sample(number)
        assert (labels == wanted).all()
        same_image, same = in_set.sample(order[key.rpartition("/")[2]])
        assert (same == wanted).all()
        assert (np.asarray(same_image) == np.asarray(image)).all()


def test_what_nobody_knows_of_objects_does_not_count(tmp_path) -> None:
    photo(tmp_path / "images/a.png", (8, 8))

    def runs(rows, columns):
        covered = np.zeros((8, 8), np.uint8, order="F")
        covered[rows, columns] = 1
        return {"size": [8, 8], "counts": rle.encode(covered)["counts"].decode()}

    first = {"category_id": 1, "segmentation": runs(slice(4), slice(4)), "bbox": [0, 0, 4, 4]}
    second = {"category_id": 2, "segmentation": [[2, 0, 6, 0, 6, 2, 2, 2]], "bbox": [2, 0, 4, 2]}
    crowd = {"category_id": 1, "segmentation": runs(slice(6, 8), slice(8)), "bbox": [0, 6, 8, 2]}
    boxed = {"category_id": 2, "bbox": [6, 3, 2, 2]}
    entries = [
        {"id": number, "image_id": 1, "iscrowd": int(entry is crowd), **entry}
        for number, entry in enumerate((first, second, crowd, boxed), 1)
    ]
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "annotations": entries,
        "categories": [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}],
    }
    (tmp_path / "list.json").write_text(json.dumps(document))
    labels = load(tmp_path / "list.json", image_root=tmp_path / "images").images.labels(0)
    wanted = np.zeros((8, 8), np.uint8)
    wanted[:4, :4] = 1
    wanted[:2, 4:6] = 2
    wanted[:2, 2:4] = 255  # both
    wanted[6:] = 255
    wanted[3:5, 6:8] = 255
    assert (labels == wanted).all()


def test_boxes_without_masks_are_no_classes_of_pixels(tmp_path) -> None:
    photo(tmp_path / "a.png", (8, 8))
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}],
        "categories": [{"id": 1, "name": "ant"}],
    }
    (tmp_path / "list.json").write_text(json.dumps(document))
    with pytest.raises(ShardError, match=r"wanted masks, .* got boxes alone; care evaluate detect"):
        load(tmp_path / "list.json")


def test_vocs_palette_is_that_of_its_devkit() -> None:
    first = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]
    assert [tuple(colour) for colour in palette(5).tolist()] == first
    assert palette(21)[20].tolist() == [0, 64, 128]
    assert palette(256)[255].tolist() == [224, 224, 192]
    assert segmentation.CITY_CLASSES[33] == "bicycle"
