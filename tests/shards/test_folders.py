"""Folders as people bring them: what is a class, what is a part, and what is junk."""

import json
import random
import pytest
from made_images import populate
import shards
from shards import Reject, objects, storage
from shards.sources import find
from shards.sources.junk import is_junk
from shards.sources.layouts import read_layout
from shards.sources.parts import part_folders


def classes_of(*names):
    return read_layout(names).class_names


JUNK = [
    ".ipynb_checkpoints/cats_00-checkpoint.jpg",
    "cats/.ipynb_checkpoints/a.jpg",
    "__MACOSX/cats/._a.jpg",
    "cats/._a.jpg",
    "cats/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
    "cats/.@__thumb/a.jpg",
    ".Trash-1000/files/a.jpg",
    "$RECYCLE.BIN/S-1-5/a.jpg",
    ".git/objects/a.png",
]


@pytest.mark.parametrize("name", JUNK)
def test_what_other_programs_leave_is_listed_and_never_a_class_or_a_lost_image(tmp_path, name):
    src = populate(tmp_path / "src", ["cats/a.jpg", "dogs/b.jpg", name])
    index = shards.build(src, tmp_path / "set", max_rejects=0)
    assert index.classes == ("cats", "dogs")
    assert index.rejects == {Reject.JUNK: [name]}
    assert (index.seen, len(index.samples)) == (3, 2)


def test_hidden_images_and_names_like_junk_are_the_users():
    names = ("cats/.a.jpg", "__meta__/a.jpg", "eaDir/a.jpg", "a._b.jpg", "macosx/a.jpg")
    assert not any(map(is_junk, names))


def test_folders_around_the_classes_are_none():
    assert classes_of("food/images/pie/1.jpg", "food/images/sushi/1.jpg") == ["pie", "sushi"]
    assert classes_of("EuroSAT/2750/River/1.jpg", "EuroSAT/2750/Sea/1.jpg") == ["River", "Sea"]
    assert classes_of("food/images/pie/1.jpg", "food/images/2.jpg") == ["pie", None]
    assert classes_of("n01440764/images/1.jpg", "n01440764/images/2.jpg") == ["n01440764"] * 2
    layout = read_layout(["images/a/1.jpg", "images/b/1.jpg", "images/u.jpg", "preview.jpg"])
    assert layout.class_names == ["a", "b", None, None]
    assert "the folder images/ is no class" in layout.notes[0]


def test_a_single_class_stays_one_and_is_told(tmp_path):
    assert classes_of("dog/deep/er/1.jpg", "dog/deep/er/2.jpg") == ["dog", "dog"]
    assert classes_of("dog/1.jpg", "dog/flipped/1.jpg") == ["dog", "dog"]
    assert "all classes are one, dog" in find(populate(tmp_path, ["dog/1.jpg"])).notes[0]


def test_a_folder_that_says_only_images_is_no_class():
    for name in ("images", "JPEGImages", "Photos", "train", "data/img_2"):
        assert classes_of(f"{name}/1.jpg", f"{name}/2.jpg") == [None, None]
    assert classes_of("train/images/1.jpg", "train/masks/1.png") == [None, None]


PARTS = [
    ("train", "val"),
    ("Training", "Testing"),
    ("TRAIN", "Validation", "test"),
    ("train_set", "test-set"),
    ("train2017", "val2017"),
    ("TrainData", "TestData"),
    ("trainimages", "testimages"),
    ("seg_train", "seg_test", "seg_pred"),
    ("asl_alphabet_train", "asl_alphabet_test"),
    ("train", "test", "unlabeled"),
]


@pytest.mark.parametrize("parts", PARTS)
def test_parts_are_no_classes_whatever_their_case_or_ending(parts):
    assert part_folders(parts).keys() == {*parts}
    names = [f"{part}/{name}/1.jpg" for part in parts for name in ("ant", "bee")]
    assert classes_of(*names) == ["ant", "bee"] * len(parts)
    inside = [f"set/{name}" for name in names]
    assert classes_of(*inside) == ["ant", "bee"] * len(parts)
    twice = [name.replace("/", f"/{name.partition('/')[0]}/", 1) for name in names]
    assert classes_of(*twice) == ["ant", "bee"] * len(parts)
    flat = [f"{part}/1.jpg" for part in parts]
    assert classes_of(*flat) == [None] * len(parts)


@pytest.mark.parametrize(
    "folders",
    [("bus", "car", "train"), ("bullet_train", "crash_test"), ("control", "test"), ("val", "x")],
)
def test_classes_that_are_called_like_parts_stay_classes(folders):
    assert part_folders(folders) == {}
    assert classes_of(*(f"{name}/1.jpg" for name in folders)) == [*folders]


def test_images_beside_parts_have_the_classes_of_the_parts_or_none():
    names = ("train/ant/1.jpg", "train/bee/1.jpg", "test/1.jpg", "more/ant/1.jpg", "more/x/1.jpg")
    assert classes_of(*names) == ["ant", "bee", None, "ant", None]


def test_a_source_of_parts_tells_how_to_build_one_of_them(tmp_path):
    src = populate(tmp_path / "scans", ["Training/a/1.jpg", "Training/b/1.jpg", "Testing/a/2.jpg"])
    source = find(src)
    assert source.classes == ["a", "b"]
    assert source.notes[0].startswith("Training, Testing: parts, not classes;")
    assert source.notes[0].endswith("name its folder: Training")


def test_folders_can_be_no_classes(tmp_path):
    src = populate(tmp_path / "src", ["monday/1.jpg", "tuesday/1.jpg"])
    index = shards.build(src, tmp_path / "set", classes=False)
    assert index.classes == ()
    assert index.samples["label"].tolist() == [-1, -1]


def test_notes_are_told_at_the_build(tmp_path, capsys):
    src = populate(tmp_path / "src", ["ant/1.jpg", "bee/1.jpg", "u.jpg"])
    shards.build(src, tmp_path / "set")
    assert "1 of 3 images has no class: trained on" in capsys.readouterr().err


def test_annotations_of_a_part_leave_the_other_images_in_the_set(tmp_path):
    src = populate(tmp_path / "src", ["cats/0.png", "cats/1.png", "dogs/0.png"])
    entry = {"id": 0, "file_name": "cats/0.png", "width": 20, "height": 16}
    annotation = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5]}
    category = {"id": 1, "name": "nose"}
    document = {"images": [entry], "annotations": [annotation], "categories": [category]}
    (src / "annotations.json").write_text(json.dumps(document))
    index = shards.build(src, tmp_path / "set")
    labels = dict(zip(index.keys, index.samples["label"].tolist(), strict=True))
    assert labels == {"cats/0": 0, "cats/1": 0, "dogs/0": 1}
    boxes = storage.read_json(tmp_path / "set" / "annotations.json")
    assert [image["key"] for image in boxes["images"]] == ["cats/0"]
    assert "1 of 3 images has annotations; the set has the others" in find(src).notes[0]


@pytest.mark.parametrize("text", ['[{"image": "a.jpg", "caption": "a"}]', '{"a": 1}', "{}\n{}\n"])
def test_an_unrelated_annotations_file_is_another_file_and_told(tmp_path, text):
    src = populate(tmp_path / "src", ["cats/0.png", "dogs/0.png"])
    (src / "annotations.json").write_text(text)
    index = shards.build(src, tmp_path / "set", max_rejects=0)
    assert index.rejects == {Reject.OTHER_FILE: ["annotations.json"]}
    assert index.classes == ("cats", "dogs")
    assert "annotations.json is no COCO" in find(src).notes[0]


def test_folders_made_in_a_stores_web_page_are_no_files(monkeypatch):
    class Store:
        """Lists what S3's web page leaves: an empty object for every folder."""

        def find(self, name, **_):
            names = {"": 0, "a/": 0, "a/1.jpg": 1, "a/b/": 0}
            return {f"{name}/{file}": {"size": size} for file, size in names.items()}

    monkeypatch.setattr(objects, "file_system", lambda _: (Store(), "bucket/sets"))
    assert storage.listing("s3://bucket/sets", deep=True) == {"a/1.jpg": 1}


@pytest.mark.parametrize("seed", range(12))
def test_every_file_of_any_mixture_is_a_sample_or_a_reject_and_never_both(tmp_path, seed):
    rng = random.Random(seed)
    wrappers = rng.choice(["", "data/", "food/images/"])
    parts = rng.choice([[""], ["train/", "val/"], ["Training/", "Testing/", "unlabeled/"]])
    places = [
        f"{wrappers}{part}{name}"
        for part in parts
        for name in ("ant/", "bee/deep/", "", ".ipynb_checkpoints/", "__MACOSX/ant/", "@eaDir/x/")
    ]
    files = ("1.jpg", "2.PNG", "._1.jpg", ".hidden.jpg", "notes.txt", "Thumbs.db", "t.csv")
    names = {rng.choice(places) + rng.choice(files) for _ in range(40)} | {f"{places[0]}ok.png"}
    src = tmp_path / "src"
    for name in names:
        populate(src, [name])
    source = find(src)
    samples = [image.name for image in source.samples]
    rejects = [name for _, name in source.rejects]
    assert sorted(samples + rejects) == sorted(names)
    assert {*source.classes} <= {"ant", "bee"}
    index = shards.build(src, tmp_path / "set", max_rejects=0)
    assert index.seen == len(names)
