"""One source into several sets: of its parts, or of a share of every class that is held out."""

import json
import subprocess
import pytest
from made_images import populate
from typer.testing import CliRunner
import shards
from flows.cli import app
from shards import ShardError, storage
from shards.sources.part_sources import find_parts

COUNTS = {"ant": 40, "bee": 7, "cat": 2, "dog": 1}


def run(*arguments):
    return CliRunner().invoke(app, ["shards", "build", *map(str, arguments)])


@pytest.fixture
def unequal(tmp_path):
    """A folder of classes of 40, 7, 2 and 1 images, four images without a class, and a text."""
    src = tmp_path / "unequal"
    for name, count in COUNTS.items():
        populate(src / name, [f"{number}.png" for number in range(count)])
    populate(src, [f"{number}.png" for number in range(4)])
    (src / "notes.txt").write_text("notes")
    return src


def counts(index):
    labels = index.samples["label"].tolist()
    return {name: labels.count(label) for label, name in enumerate(index.classes)}


# parts


@pytest.mark.parametrize("wrapper", ["", "archive/data/"])
@pytest.mark.parametrize(
    "parts", [("train", "val"), ("Training", "Testing"), ("train", "test", "valid", "unlabeled")]
)
def test_each_part_is_a_set_of_its_own(tmp_path, wrapper, parts):
    src = tmp_path / "photos"
    for number, part in enumerate(parts):
        names = [f"{name}/{n}.png" for name in ("ant", "bee") for n in range(number + 2)]
        populate(src / wrapper / part, names)
    indexes = shards.build_sets(src, tmp_path / "sets")
    assert next(iter(indexes)) == parts[0]
    assert {name: len(index.samples) for name, index in indexes.items()} == {
        part: 2 * (number + 2) for number, part in enumerate(parts)
    }
    for name, index in indexes.items():
        assert index.classes == ("ant", "bee")
        alone = shards.build(src / wrapper / name, tmp_path / "alone" / name)
        assert alone.digest == index.digest


def test_parts_without_classes_are_sets_without_classes(tmp_path):
    src = populate(tmp_path / "src", ["train/1.png", "train/2.png", "val/1.png"])
    indexes = shards.build_sets(src, tmp_path / "sets")
    assert {name: index.classes for name, index in indexes.items()} == {"train": (), "val": ()}


def test_what_lies_beside_the_parts_is_told(tmp_path, capsys):
    src = populate(tmp_path / "src", ["train/a/1.png", "val/a/1.png", "x.png", ".git/y.png"])
    shards.build_sets(src, tmp_path / "sets")
    told = capsys.readouterr().err
    assert "a set of each part: train, val (--no-parts: one of all)" in told
    assert "1 files beside the parts are in no set, such as x.png" in told


def test_classes_are_no_parts(tmp_path, unequal):
    names = ["bus/1.png", "car/1.png", "train/1.png"]
    for src in (unequal, populate(tmp_path / "vehicles", names)):
        assert find_parts(src).names == []
        (index,) = shards.build_sets(src, tmp_path / "sets" / src.name, max_rejects=1).values()
        assert len(index.classes) > 2


def test_annotated_parts_keep_their_boxes(tmp_path):
    for part in ("train", "valid"):
        folder = populate(tmp_path / "src" / part, ["1.jpg"])
        entry = {"id": 1, "file_name": "1.jpg", "width": 20, "height": 16}
        box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
        category = {"id": 1, "name": "dog"}
        document = {"images": [entry], "annotations": [box], "categories": [category]}
        (folder / "_annotations.coco.json").write_text(json.dumps(document))
    indexes = shards.build_sets(tmp_path / "src", tmp_path / "sets")
    assert list(indexes) == ["train", "valid"]
    assert all("annotations.json" in index.sha256 for index in indexes.values())


def test_parts_may_be_folders_of_tars(tmp_path):
    for part in ("train", "val"):
        folder = populate(tmp_path / "images" / part, ["1.jpg", "2.jpg"])
        (tmp_path / "src" / part).mkdir(parents=True)
        tar = tmp_path / "src" / part / "0.tar"
        subprocess.run(["tar", "cf", tar, "-C", folder, "1.jpg", "2.jpg"], check=True)
    indexes = shards.build_sets(tmp_path / "src", tmp_path / "sets")
    assert {name: len(index.samples) for name, index in indexes.items()} == {"train": 2, "val": 2}


def test_all_parts_can_be_one_set_and_a_set_is_no_folder_of_sets(tmp_path):
    src = populate(tmp_path / "src", ["train/a/1.png", "train/b/1.png", "val/a/2.png"])
    (index,) = shards.build_sets(src, tmp_path / "sets", parts=False).values()
    assert len(index.samples) == 3
    with pytest.raises(ShardError, match=r"a folder for several sets, got .*--no-parts for one"):
        shards.build_sets(src, tmp_path / "sets")
    with pytest.raises(ShardError, match=r"src/sets lies in the source"):
        shards.build_sets(src, src / "sets")


def test_a_single_part_is_a_set(tmp_path):
    src = populate(tmp_path / "src", ["train/a/1.png", "train/b/1.png"])
    (index,) = shards.build_sets(src, tmp_path / "set").values()
    assert (index.path, index.classes) == (tmp_path / "set", ("a", "b"))


# held out


def test_the_same_share_of_every_class_is_held_out(unequal, tmp_path):
    indexes = shards.build_sets(unequal, tmp_path / "sets", val_share=0.1)
    assert counts(indexes["val"]) == {"ant": 4, "bee": 1, "cat": 1, "dog": 0}
    assert counts(indexes["train"]) == {"ant": 36, "bee": 6, "cat": 1, "dog": 1}
    labels = {name: index.samples["label"].tolist() for name, index in indexes.items()}
    assert (labels["val"].count(-1), labels["train"].count(-1)) == (1, 3)
    keys = [*indexes["train"].keys.tolist(), *indexes["val"].keys.tolist()]
    assert sorted(keys) == sorted(shards.build(unequal, tmp_path / "all").keys.tolist())
    rejects = {name: dict(index.rejects) for name, index in indexes.items()}
    assert rejects == {"train": {"other file": ["notes.txt"]}, "val": {}}


def test_neither_seed_nor_other_images_move_an_image_to_the_other_part(unequal, tmp_path):
    def held_out(name, **options):
        indexes = shards.build_sets(unequal, tmp_path / name, val_share=0.2, **options)
        return {*indexes["val"].keys.tolist()}

    first = held_out("first")
    assert held_out("seed", seed=7, shard_size=5) == first
    populate(unequal / "eel", ["1.png", "2.png", "3.png"])
    assert first < held_out("more")


def test_the_part_is_recorded(unequal, tmp_path):
    shards.build_sets(unequal, tmp_path / "sets", val_share=0.25)
    index = shards.open(tmp_path / "sets/val").index
    assert index.hold_out == shards.HoldOut("val", 0.25)
    document = storage.read_json(tmp_path / "sets/train/index.json")
    assert document["hold_out"] == {"part": "train", "val_share": 0.25}
    assert "hold_out" not in storage.read_json(
        shards.build(unequal, tmp_path / "all").path / "index.json"
    )
    assert shards.verify(tmp_path / "sets/val") == []
    with pytest.raises(ShardError, match="other input or options"):
        shards.build_sets(unequal, tmp_path / "sets", val_share=0.26)


def test_boxes_go_with_their_images(tmp_path):
    folder = populate(tmp_path / "src", [f"{number}.jpg" for number in range(10)])
    size = {"width": 20, "height": 16}
    images = [{"id": number, "file_name": f"{number}.jpg", **size} for number in range(10)]
    boxes = [
        {"id": number, "image_id": number, "category_id": 1, "bbox": [1, 1, 5, 5]}
        for number in range(10)
    ]
    category = {"id": 1, "name": "dog"}
    document = {"images": images, "annotations": boxes, "categories": [category]}
    (folder / "annotations.json").write_text(json.dumps(document))
    shards.build_sets(folder, tmp_path / "sets", val_share=0.3)
    sizes = {}
    for part in ("train", "val"):
        kept = storage.read_json(tmp_path / "sets" / part / "annotations.json")
        keys = [image["key"] for image in kept["images"]]
        assert sorted(keys) == sorted(shards.open(tmp_path / "sets" / part).keys.tolist())
        sizes[part] = (len(kept["images"]), len(kept["annotations"]))
    assert sizes == {"train": (7, 7), "val": (3, 3)}


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_shares_out_of_range_are_refused(unequal, tmp_path, share):
    with pytest.raises(ShardError, match="a share to hold out above 0 and below 1"):
        shards.build_sets(unequal, tmp_path / "sets", val_share=share)


def test_nothing_to_hold_out_is_told(tmp_path):
    src = populate(tmp_path / "src", ["a/1.png", "b/1.png"])
    with pytest.raises(ShardError, match="no two have the same class"):
        shards.build_sets(src, tmp_path / "sets", val_share=0.5)


# the command


def test_the_command_builds_and_shows_each_set(unequal, tmp_path):
    result = run(unequal, tmp_path / "sets", "--val-share", "0.1", "--json")
    facts = json.loads(result.stdout)
    assert {name: fact["kept"] for name, fact in facts.items()} == {"train": 47, "val": 7}
    assert facts["val"]["part"] == "val: 0.1 of every class"
    assert facts["train"]["rejects"] == {"other file": ["notes.txt"]}
    shown = "".join(run(unequal, tmp_path / "sets", "--val-share", "0.1").stdout.split())
    assert "sets/train" in shown
    assert "sets/val" in shown


def test_the_command_leaves_what_is_no_folder_of_parts_as_it_was(unequal, tmp_path):
    facts = json.loads(run(unequal, tmp_path / "set", "--json").stdout)
    assert (facts["kept"], "part" in facts) == (54, False)


def test_the_command_refuses_a_share_of_parts(tmp_path):
    src = populate(tmp_path / "src", ["train/a/1.png", "train/b/1.png", "val/a/2.png"])
    result = run(src, tmp_path / "sets", "--val-share", "0.1")
    assert result.exit_code == 1
    assert "has the parts train, val" in str(result.exception)
    assert run(src, tmp_path / "one", "--no-parts").exit_code == 0
