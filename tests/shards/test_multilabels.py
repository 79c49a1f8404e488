"""Tables of several classes an image, in the forms that tools and data sets have."""

import json
import numpy as np
import pytest
from made_images import populate
import shards
from shards import ShardError, multilabels

SHOWN = {
    "a": {"cat", "dog"},
    "b": {"dog"},
    "c": set(),
    "d": {"ant", "cat", "dog"},
    "e": {"ant"},
    "f": {"ant", "dog"},
}
CLASSES = ("ant", "cat", "dog")
MATRIX = [[int(name in shown) for name in CLASSES] for shown in SHOWN.values()]
FLAGS = {f"{stem}.jpg": row for stem, row in zip(SHOWN, MATRIX, strict=True)}


def cells(separator):
    return [f"{stem}.jpg,{separator.join(sorted(shown))}" for stem, shown in SHOWN.items()]


def flags(numbers, separator=","):
    rows = {name: [numbers[flag] for flag in row] for name, row in FLAGS.items()}
    return [f"{name}{separator}{separator.join(row)}" for name, row in rows.items()]


TABLES = {
    "semicolons.csv": ["image,labels", *cells(";")],
    "without-head.csv": cells(";"),
    "bars.csv": ["Image Index,Finding Labels,Patient Age", *(f"{c},9" for c in cells("|"))],
    "blanks.csv": ["image_name,tags", *cells(" ")],
    "commas.csv": [
        "image,labels",
        *(f'{stem}.jpg,"{",".join(sorted(shown))}"' for stem, shown in SHOWN.items()),
    ],
    "python.csv": [
        "image,labels",
        *(f'{stem}.jpg,"{sorted(shown)}"' for stem, shown in SHOWN.items()),
    ],
    "other-delimiter.csv": ["image;labels", *(c.replace(",", ";") for c in cells("|"))],
    "ids.csv": ["id,labels", *(c.replace(".jpg", "") for c in cells(";"))],
    "cells.csv": [f"{stem}.jpg,{','.join(sorted(shown))}" for stem, shown in SHOWN.items()],
    "words.txt": [f"{stem}.jpg {' '.join(sorted(shown))}" for stem, shown in SHOWN.items()],
    "rows.csv": [
        "image,label",
        *(f"{stem}.jpg,{n}" for stem, shown in SHOWN.items() for n in (shown or {""})),
    ],
    "one-hot.csv": ["image,ant,cat,dog", *flags("01")],
    "floats.csv": ["image,ant,cat,dog", *flags(("0.0", "1.0"))],
    "booleans.csv": ["image,ant,cat,dog", *flags(("False", "True"))],
    "minus-one.csv": ["image,ant,cat,dog", *flags(("-1", "1"))],
    "ones-alone.csv": ["image,ant,cat,dog", *flags(("", "1"))],
    "beside-others.csv": [
        "image,age,ant,cat,dog,sex",
        *(f"{line.replace(',', f',{40 + n},', 1)},F" for n, line in enumerate(flags("01"))),
    ],
    "lists.jsonl": [
        json.dumps({"file_name": f"{stem}.jpg", "labels": sorted(shown)})
        for stem, shown in SHOWN.items()
    ],
}


@pytest.fixture
def photos(tmp_path):
    populate(tmp_path, [f"{stem}.jpg" for stem in SHOWN])
    return tmp_path


def written(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_all_classes_of_an_image(photos, name):
    data = multilabels.load(written(photos / name, TABLES[name]))
    assert data.classes == CLASSES
    assert data.targets.tolist() == MATRIX
    assert [key.removesuffix(".jpg") for key in data.keys] == [*SHOWN]
    assert data.rejects == {}
    assert data.image(3).mode == "RGB"


def test_flags_without_a_head_are_classes_by_number(photos):
    data = multilabels.load(written(photos / "list.txt", flags("01", " ")))
    assert (data.classes, data.targets.tolist()) == (("1", "2", "3"), MATRIX)


def test_numbers_of_classes_are_sorted_as_such(photos):
    lines = ["image,label", "a.jpg,0;10", "b.jpg,9", "c.jpg,-1"]
    data = multilabels.load(written(photos / "numbers.csv", lines))
    assert data.classes == ("0", "9", "10")
    assert data.targets.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_names_with_blanks_and_commas_stay_whole(photos):
    lines = ["image,labels", "a.jpg,polar bear", 'b.jpg,"tench, Tinca tinca"', "c.jpg,polar bear"]
    data = multilabels.load(written(photos / "names.csv", lines))
    assert data.classes == ("polar bear", "tench, Tinca tinca")


def test_a_column_of_zeros_and_ones_that_is_called_label_has_two_classes(photos):
    lines = ["image,label", "a.jpg,0", "b.jpg,1"]
    data = multilabels.load(written(photos / "binary.csv", lines))
    assert (data.classes, data.targets.tolist()) == (("0", "1"), [[1, 0], [0, 1]])
    lines = ["image,cat", "a.jpg,0", "b.jpg,1"]
    data = multilabels.load(written(photos / "cat.csv", lines))
    assert (data.classes, data.targets.tolist()) == (("cat",), [[0], [1]])


def test_a_class_that_no_image_shows_has_a_column_all_the_same(photos):
    lines = ["image,note,ant,cat,dog", "a.jpg,x,1,0,0", "b.jpg,,0,0,1", "c.jpg,,0,0,0"]
    data = multilabels.load(written(photos / "never.csv", lines))
    assert data.classes == CLASSES
    assert data.targets.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert [*data.notes] == ["3 classes, each a column: ant, cat, dog", "columns left aside: note"]


def test_blanks_beside_zeros_are_undecided_and_said(photos):
    lines = ["image,ant,cat", "a.jpg,1,", "b.jpg,0,1", "c.jpg,nan,0"]
    data = multilabels.load(written(photos / "blank.csv", lines))
    assert data.targets.tolist() == [[1, -1], [0, 1], [-1, 0]]
    assert "2 cells are blank: neither learned nor scored" in data.notes


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["image,ant,cat", "a.jpg,1,-1", "b.jpg,0,1"], r"1, 0 and -1.*leave cells blank"),
        (["image,age,sex", "a.jpg,4,x", "b.jpg,5,y"], r"name the columns by --columns IMAGE"),
        (["image,labels", "a.jpg,cat,dog", "b.jpg,cat"], r"more cells than its head names"),
        (["a.jpg,1,0", "b.jpg,1"], r"wanted a column of classes, or for each class one of 1"),
        (["image", "a.jpg", "b.jpg"], r"wanted classes beside the images"),
        (["image,labels", "x.jpg,cat", "y.jpg,dog"], r"none of the 2 images .* --image-root"),
        (["image,labels"], r"wanted rows of image and classes"),
        (["image,labels", "http://h.test/a.jpg,cat"], r"build a set of them"),
    ],
)
def test_what_is_not_clear_is_refused_in_one_line(photos, lines, message):
    with pytest.raises(ShardError, match=message):
        multilabels.load(written(photos / "odd.csv", lines))


def test_columns_can_be_named(photos):
    lines = ["image,x,y,z", "a.jpg,1,0,cat", "b.jpg,1,1,dog"]
    table = written(photos / "many.csv", lines)
    data = multilabels.load(table, columns=("image", "x", "y"))
    assert (data.classes, data.targets.tolist()) == (("x", "y"), [[1, 0], [1, 1]])
    data = multilabels.load(table, columns=("image", "z"))
    assert (data.classes, data.targets.tolist()) == (("cat", "dog"), [[1, 0], [0, 1]])
    with pytest.raises(ShardError, match=r"wanted a column w, got image, x, y, z"):
        multilabels.load(table, columns=("image", "w"))


def test_what_is_not_there_and_what_does_not_count_is_listed(photos):
    lines = ["image,labels", "a.jpg,cat;cow", "nope.jpg,cat", "./a.jpg,dog", "notes.doc,dog"]
    data = multilabels.load(written(photos / "t.csv", lines), classes=("dog", "cat"))
    assert (data.classes, data.targets.tolist()) == (("dog", "cat"), [[0, 1]])
    assert data.rejects == {
        "image missing or broken": ["nope.jpg"],
        "listed twice": ["./a.jpg"],
        "other file": ["notes.doc"],
        "unknown category": ["a.jpg: cow"],
    }


def test_rows_of_one_image_are_one_image_but_flags_count_once(photos):
    lines = ["image,ant,cat", "a.jpg,1,0", "b.jpg,0,1", "a.jpg,0,1"]
    data = multilabels.load(written(photos / "t.csv", lines))
    assert (data.keys, data.targets.tolist()) == (("a.jpg", "b.jpg"), [[1, 0], [0, 1]])
    assert data.rejects == {"listed twice": ["a.jpg"]}


def test_a_set_can_have_the_images_of_a_table(photos, tmp_path_factory):
    there = tmp_path_factory.mktemp("set")
    shards.build(photos, there / "set")
    table = written(there / "labels.csv", [*TABLES["semicolons.csv"], "nope.jpg,cat"])
    data = multilabels.load(table, image_root=there / "set")
    assert (data.classes, data.targets.tolist()) == (CLASSES, MATRIX)
    assert data.rejects == {"image missing or broken": ["nope.jpg"]}
    of_files = multilabels.load(written(photos / "t.csv", TABLES["semicolons.csv"]))
    for number in range(len(SHOWN)):
        assert np.array_equal(data.image(number), of_files.image(number))
    populate(there / "more", ["g.jpg", "h.jpg"])
    shards.build(there / "more", there / "sets/val")
    shards.build(photos, there / "sets/train")
    for table, part in (("labels.csv", "train"), ("more.csv", "val")):
        written(there / "more.csv", ["image,labels", "g,cat", "h,cat;dog"])
        data = multilabels.load(there / table, image_root=there / "sets")
        assert data.notes[-1].endswith(f"sets/{part}")
    assert data.targets.tolist() == [[1, 0], [1, 1]]
    other = written(there / "other.csv", ["image,labels", "x.jpg,cat", "y.jpg,dog"])
    with pytest.raises(ShardError, match=r"none of the 2 images .* is in .*the set a"):
        multilabels.load(other, image_root=there / "set")


def test_equal_images_and_classes_have_equal_digests(photos):
    first, second = (
        multilabels.load(written(photos / name, TABLES[name])) for name in ("bars.csv", "rows.csv")
    )
    assert first.digest == second.digest
    changed = [*TABLES["bars.csv"][:-1], "f.jpg,ant,9"]
    assert multilabels.load(written(photos / "bars.csv", changed)).digest != first.digest
    populate(photos, ["f.jpg"], seed=9)
    assert multilabels.load(photos / "rows.csv").digest != second.digest


def test_coco_without_boxes_says_all_categories_of_an_image(photos):
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES)]
    images = [{"id": n, "file_name": f"{stem}.jpg"} for n, stem in enumerate(SHOWN)]
    pairs = [(n, CLASSES.index(name)) for n, shown in enumerate(SHOWN.values()) for name in shown]
    objects = [
        {"id": number, "image_id": image, "category_id": category}
        for number, (image, category) in enumerate(pairs)
    ]
    document = {"images": images, "annotations": objects, "categories": categories}
    (photos / "annotations.json").write_text(json.dumps(document))
    data = multilabels.load(photos / "annotations.json")
    assert (data.classes, data.targets.tolist()) == (CLASSES, MATRIX)


def test_what_says_no_classes_is_refused_with_what_to_name(photos, tmp_path_factory):
    there = tmp_path_factory.mktemp("set")
    shards.build(photos, there / "set")
    advice = {
        there / "set": "one class an image: name the table",
        photos: "it has no such list",
        there / "nowhere": "nothing is there: check the path",
    }
    for place, text in advice.items():
        with pytest.raises(ShardError, match=rf"got {place}; .*{text}"):
            multilabels.load(place)
    table = written(photos / "labels.csv", TABLES["semicolons.csv"])
    with pytest.raises(ShardError, match=f"name one of its lists: {table}"):
        multilabels.load(photos)


def test_columns_of_what_is_no_table_are_refused(photos):
    with pytest.raises(ShardError, match=r"wanted a table whose columns are called image"):
        multilabels.load(photos, columns=("image",))
