"""A path that leads nowhere: the message has what it may have meant."""

import pytest
from made_images import populate
import shards
from care import CareError
from care.show import gather, report
from care.train import load_encoder
from shards import ShardError, boxes
from shards.misspelt import suggestion


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a folder of images in it, and other things."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos/train", "runs/resnet50", "sets"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("photo", "photos"),
        ("Photos", "photos"),
        ("photos/trian", "photos/train"),
        ("photo/train", "photos/train"),
        ("runs/resnet-50/", "runs/resnet50"),
    ],
)
def test_what_is_called_nearly_so_is_suggested(place, path, meant):
    assert suggestion(path) == f"; did you mean {meant}?"
    assert suggestion(place / path) == f"; did you mean {place / meant}?"


@pytest.mark.parametrize(
    "path", ["photos", "images", "photo/val", "nowhere/at/all", "", "memory://photo", "sets/x/y"]
)
def test_nothing_is_suggested_that_is_not_there_or_is_another_thing(place, path):
    assert suggestion(path) == ""


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (lambda: shards.build("photo", "new"), ShardError),
        (lambda: shards.open("photo"), ShardError),
        (lambda: boxes.load("photo"), ShardError),
        (lambda: load_encoder("photo"), CareError),
        (lambda: gather("photo"), CareError),
        (lambda: report("photo"), CareError),
    ],
)
def test_all_that_take_a_path_suggest(place, action, error):
    with pytest.raises(error, match=r"; did you mean photos\?"):
        action()


def test_a_folder_of_sets_is_told_from_one_of_images(tmp_path):
    src = populate(tmp_path / "photos", [f"{name}/{n}.png" for name in "ab" for n in range(4)])
    shards.build_sets(src, tmp_path / "sets", val_share=0.3)
    message = r"a folder of sets; name one of them: \S+sets/train, \S+sets/val"
    with pytest.raises(ShardError, match=message):
        shards.open(tmp_path / "sets")
    with pytest.raises(ShardError, match=r"got no index\.json; if it is images, build a set"):
        shards.open(src)


def test_a_part_of_what_is_a_single_set_is_answered_with_the_set(tmp_path):
    shards.build(populate(tmp_path / "photos", ["a/1.png", "b/1.png"]), tmp_path / "sets")
    message = r"got nothing of that name, but \S+sets is a set itself; name that, or .*--val-share"
    with pytest.raises(ShardError, match=message):
        shards.open(tmp_path / "sets" / "train")


def test_another_share_of_a_finished_set_is_named(tmp_path):
    src = populate(tmp_path / "photos", [f"{name}/{n}.png" for name in "ab" for n in range(4)])
    shards.build_sets(src, tmp_path / "sets", val_share=0.25)
    message = r"its images are train: all but 0.25 of every class, not train: all but 0.5 of every"
    with pytest.raises(ShardError, match=message):
        shards.build_sets(src, tmp_path / "sets", val_share=0.5)
    populate(src, ["c/0.png"])
    with pytest.raises(ShardError, match=r"\(its classes are 2, not 3; its files are 6, not 7\); "):
        shards.build_sets(src, tmp_path / "sets", val_share=0.25)


def test_a_folder_of_other_files_is_told_by_their_kinds(tmp_path):
    for name in ("1.pdf", "2.PDF", "3.docx", "README"):
        (tmp_path / name).write_bytes(b"%PDF")
    message = r"got no file that ends as images do .*: 2 \.pdf, 1 \.docx, 1 none; check"
    with pytest.raises(ShardError, match=message):
        shards.build(tmp_path, tmp_path.parent / "set")
