"""Which few labelled images are learned from."""

import itertools
import numpy as np
import pytest
from finetuning import (
    ALL,
    saved,
    tune,
    write_list,
)
import shards
from care import CareError
from care.evaluate import listed, stratified
from shards import storage
from shards.errors import Misuse


def draw_labels(seed=0):
    return (
        np.random.default_rng(seed)
        .choice(7, 1500, p=(0.4, 0.3, 0.2, 0.05, 0.04, 0.005, 0.005))
        .astype(np.int32)
        - 1
    )


@pytest.mark.parametrize("fraction", [0.001, 0.01, 0.1, 0.5, 1.0])
def test_of_every_class_its_share_is_chosen_and_at_least_one(fraction):
    labels = draw_labels()
    rows = stratified(labels, fraction, seed=3)
    assert rows.dtype == np.int64
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert -1 in labels
    assert -1 not in labels[rows]
    for label in range(6):
        count = sum(1 for value in labels if value == label)
        assert sum(1 for row in rows if labels[row] == label) == max(1, round(count * fraction))


def test_a_smaller_fraction_is_a_part_of_a_larger_one():
    labels = draw_labels()
    one, ten, half, whole = (
        set(stratified(labels, fraction).tolist()) for fraction in (0.01, 0.1, 0.5, 1)
    )
    assert one < ten < half < whole
    assert whole == set(np.flatnonzero(labels >= 0).tolist())


def test_another_seed_chooses_others_and_the_same_one_the_same():
    labels = draw_labels()
    choices = [stratified(labels, 0.1, seed=seed).tolist() for seed in range(4)]
    assert all(choices[a] != choices[b] for a in range(4) for b in range(a))
    assert stratified(labels, 0.1, seed=2).tolist() == choices[2]
    same_positions = stratified(np.repeat(np.arange(2, dtype=np.int32), 400), 0.1).reshape(2, 40)
    assert (
        same_positions[0].tolist() != (same_positions[1] - 400).tolist()
    )  # every class is drawn on its own


def test_without_labels_nothing_is_chosen():
    assert stratified(np.full(5, -1, np.int32), 0.5).tolist() == []


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(
        Misuse, match=rf"wanted a fraction of the labels above 0 and at most 1, got {fraction}"
    ):
        stratified(draw_labels(), fraction)


def test_a_list_names_images_by_their_stem(train, tmp_path):
    names = (
        "train_11.png",
        "",
        "train_4",
        "  red/train_16.JPEG ",
        "gone_1.png",
        "train_11.png",
        "train_1",
        " ",
        "other",
        "",
    )
    path = write_list(tmp_path, *names)
    rows, missing = listed(train, path)
    keys = [key.rpartition("/")[2] for key in train.keys]
    assert rows.dtype == np.int64
    assert rows.tolist() == sorted(keys.index(f"train_{n}") for n in (1, 4, 11, 16))
    assert missing == ["gone_1.png", "other"]
    assert listed(train, str(write_list(tmp_path, "train_29.png")))[1] == []


def test_a_name_that_several_images_have_is_refused(make_image, tmp_path):
    for n, name in enumerate(("ant/1.png", "bee/1.png", "bee/2.png")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        make_image(n).save(tmp_path / "photos" / name)
    shards.build(tmp_path / "photos", tmp_path / "set", workers=1)
    data = shards.open(tmp_path / "set")
    with pytest.raises(
        CareError, match=r"list\.txt names 1\.jpg, but .*set has 2 images of that name"
    ):
        listed(data, write_list(tmp_path, "2.jpg", "1.jpg"))
    rows, missing = listed(data, write_list(tmp_path, "2.jpg", "3.jpg"))
    assert [data.keys[row] for row in rows] == ["bee/2"]
    assert missing == ["3.jpg"]


@pytest.fixture(scope="module")
def cameras(make_image, tmp_path_factory):
    """Images of equal names in their classes, one of them in a folder of its class."""
    root = tmp_path_factory.mktemp("cameras")
    names = ("ash/1.png", "ash/2.png", "bay/1.png", "bay/2.png", "bay/day.1/2.png", "bay/a b.png")
    for n, name in enumerate(names):
        (root / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        make_image(n).save(root / "photos" / name)
    shards.build(root / "photos", root / "set", workers=1)
    return shards.open(root / "set")


@pytest.mark.parametrize(
    ("lines", "keys", "missing"),
    [
        (["ash/1.png", "bay/2.jpg"], ["ash/1", "bay/2"], []),
        (["train/ash/1.png", "./bay/1"], ["ash/1", "bay/1"], []),
        (["ash\\2.png", "bay/day.1/2.png"], ["ash/2", "bay/day%2E1/2"], []),
        # as of lists with labels, whose numbers are not read
        (["ash/1.png 0", "bay/1.png 7"], ["ash/1", "bay/1"], []),
        (["ash/1.png,ash", "bay/a b.png,bay"], ["ash/1", "bay/a b"], []),
        (["bay/a b.png"], ["bay/a b"], []),
        # what lies elsewhere is another image
        (["ash/1.png", "cat/1.png", "ash/9.png"], ["ash/1"], ["cat/1.png", "ash/9.png"]),
        (["ash/1.png", "a b.png"], ["ash/1", "bay/a b"], []),
        # no folder of the list is one of the set
        (["flat/a b.png", "flat/c.png"], ["bay/a b"], ["flat/c.png"]),
    ],
)
def test_a_name_with_a_folder_is_the_image_in_that_folder(cameras, tmp_path, lines, keys, missing):
    rows, absent = listed(cameras, write_list(tmp_path, *lines))
    assert sorted(cameras.keys[rows]) == keys
    assert absent == missing


@pytest.mark.parametrize("head", [["label,path"], [], ["id,file_name"]])
def test_the_column_of_a_table_that_names_images_is_the_list(cameras, tmp_path, head):
    path = tmp_path / "few.csv"
    path.write_text("\n".join([*head, "1,ash/1.png", "2,bay/a b.png", "1,ash/gone.png"]))
    rows, missing = listed(cameras, path)
    assert sorted(cameras.keys[rows]) == ["ash/1", "bay/a b"]
    assert missing == ["ash/gone.png"]


def test_a_folder_that_leaves_several_images_is_refused_with_their_names(cameras, tmp_path):
    with pytest.raises(CareError, match=r"names 1\.png, but .* 2 images .*ash/1 and bay/1; write"):
        listed(cameras, write_list(tmp_path, "1.png", "bay/a b.png"))


def test_names_with_dots_and_equal_stems_are_told_apart(make_image, tmp_path):
    for n, name in enumerate(("3.jpg", "3.png", "x.v2.png", "4.png")):
        (tmp_path / "photos" / "a").mkdir(parents=True, exist_ok=True)
        make_image(n).save(tmp_path / "photos" / "a" / name)
    shards.build(tmp_path / "photos", tmp_path / "set", workers=1)
    data = shards.open(tmp_path / "set")
    row = {
        name: [data.keys[n] for n in listed(data, write_list(tmp_path, name))[0]]
        for name in ("3.jpg", "3.png", "x.v2.png", "x.v2")
    }
    assert row == {
        "3.jpg": ["a/3"],
        "3.png": ["a/3%2Epng"],
        "x.v2.png": ["a/x%2Ev2"],
        "x.v2": ["a/x%2Ev2"],
    }
    assert listed(data, write_list(tmp_path, "4.tar", "3"))[1] == ["4.tar"]


def test_a_list_of_another_set_and_one_that_cannot_be_read_are_refused(train, tmp_path):
    with pytest.raises(
        CareError,
        match=r"none of the 2 names in .*list\.txt is an image of .*train; the list is of "
        "another set",
    ):
        listed(train, write_list(tmp_path, "n01440764_1.JPEG", "", "n01440764_2.JPEG"))
    with pytest.raises(CareError, match=r"wanted a name .* in each line of .*, got no line"):
        listed(train, write_list(tmp_path, "", " "))
    for path in (tmp_path / "none.txt", tmp_path / "none.csv", tmp_path):
        with pytest.raises(CareError, match=f"cannot read the list {path}"):
            listed(train, path)
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(CareError, match=r"cannot read the list .*image\.png"):
        listed(train, tmp_path / "image.png")


def test_the_images_are_given_in_exactly_one_way(tiny, train, val, reads, tmp_path):
    ways = {"fraction": 0.4, "names": write_list(tmp_path, "train_1.png"), "rows": ALL}
    for count in (0, 2, 3):
        for chosen in itertools.combinations(ways, count):
            with pytest.raises(
                Misuse,
                match=r"as one of fraction and names, such as --fraction 0\.1 or --list NAMES\.txt",
            ):
                tune(tiny, train, val, tmp_path / "run", **{name: ways[name] for name in chosen})
    with pytest.raises(
        Misuse, match="wanted a fraction of the labels above 0 and at most 1, got 0"
    ):
        tune(tiny, train, val, tmp_path / "run", fraction=0.0)
    assert not reads
    assert not (tmp_path / "run").exists()


def test_a_fraction_and_a_list_are_the_rows_that_they_choose(tiny, train, val, tmp_path, capsys):
    wanted = tune(
        tiny, train, val, tmp_path / "1", rows=stratified(train.labels, 0.4, seed=3), seed=3
    )
    assert tune(tiny, train, val, tmp_path / "2", fraction=0.4, seed=3) == wanted
    assert saved(tmp_path / "2") == saved(tmp_path / "1")
    assert tune(tiny, train, val, tmp_path / "3", fraction=0.4, seed=4) == tune(
        tiny, train, val, tmp_path / "4", rows=stratified(train.labels, 0.4, seed=4), seed=4
    )
    path = write_list(
        tmp_path,
        *(
            key.rpartition("/")[2]
            for key in np.array(train.keys)[stratified(train.labels, 0.4, seed=3)]
        ),
    )
    assert tune(tiny, train, val, tmp_path / "5", names=path, seed=3) == wanted
    assert saved(tmp_path / "5") == saved(tmp_path / "1")
    assert "not in" not in capsys.readouterr().err
    assert wanted.task == "40 % of the labels"
    assert wanted.protocol == (
        "the whole network fine-tuned on 12 labelled images, crops of 32 px, batch 8, "
        "learning rates and epochs as given"
    )
    assert wanted.measures.keys() == {"top1", "top5"}


def test_names_that_are_not_in_the_set_and_classes_without_a_label_are_said(
    tiny, train, val, tmp_path, capsys
):
    rows = [row for row in ALL if train.classes[train.labels[row]] not in ("cyan", "red")]
    names = [train.keys[row].rpartition("/")[2] for row in rows]
    got = tune(
        tiny,
        train,
        val,
        tmp_path / "list",
        names=write_list(tmp_path, *names, "gone_1.png", "gone_2.png"),
    )
    said = capsys.readouterr().err
    assert f"2 names of {tmp_path}/list.txt are not in {train.path}, such as gone_1.png\n" in said
    assert "2 classes have no labelled image, such as cyan\n" in said
    assert tune(tiny, train, val, tmp_path / "rows", rows=np.array(rows)) == got
    assert "classes have no" in capsys.readouterr().err
    tune(tiny, train, val, tmp_path / "all", rows=ALL)
    assert "no labelled image" not in capsys.readouterr().err


def test_a_list_may_be_a_url(tiny, train, val, machine, url, tmp_path):
    machine("first")
    names = [key.rpartition("/")[2] for key in np.array(train.keys)[:12]]
    storage.write_bytes(f"{url}/list.txt", "\n".join([*names, "gone_1.png"]).encode())
    assert listed(train, f"{url}/list.txt")[1] == ["gone_1.png"]
    got = tune(tiny, train, val, f"{url}/run", names=f"{url}/list.txt", epochs=(1,))
    assert got == tune(tiny, train, val, tmp_path / "run", rows=ALL[:12], epochs=(1,))
    with pytest.raises(CareError, match=f"cannot read the list {url}/none.txt"):
        listed(train, f"{url}/none.txt")
