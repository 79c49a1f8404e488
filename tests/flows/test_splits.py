"""Which folders a pipeline trains and evaluates on."""

import pytest
from PIL import Image
from flows.annotated import AnnotatedPair
from flows.experiment import Detection, Experiment, Images
from flows.identity import input_identity
from flows.splits import split_images
from shards import ShardError, build, scenes, storage
from shards.build_sets import build_sets
from shards.once import listing_once


def photos(root, *names):
    for name in names:
        file = root / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(file)
    return str(root)


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train", "val"),
        ("Training", "Testing"),
        ("TRAIN", "Validation"),
        ("seg_train", "seg_test"),
        ("trainset", "testset"),
        ("train2017", "val2017"),
    ],
)
def test_parts_are_found_in_any_spelling_and_within_other_folders(tmp_path, train, val):
    names = [f"{part}/{name}/1" for part in (train, val) for name in ("ant", "bee")]
    images = photos(tmp_path / "flat", *names)
    assert split_images(images)[:2] == (
        {"train": {"source": f"{images}/{train}"}, "val": {"source": f"{images}/{val}"}},
        [],
    )
    images = photos(tmp_path / "deep", *(f"archive/data/{name}" for name in names))
    assert split_images(images).parts["val"] == {"source": f"{images}/archive/data/{val}"}


def test_a_part_without_labels_is_passed_and_told(tmp_path):
    names = [f"train/{name}/{number}" for name in ("ant", "bee") for number in range(5)]
    images = photos(tmp_path / "images", *names, "test/1", "unlabeled/1")
    parts, skipped, *_ = split_images(images)
    assert parts["train"] == {"source": f"{images}/train", "share": [0, 0.8]}
    assert skipped == [
        "the folder unlabeled: train is trained on",
        "the folder test: there are no images with labels in it",
    ]


def test_how_folders_are_read_is_told_and_nothing_of_it_is_left_out(tmp_path):
    names = [f"images/{name}/{number}" for name in ("ant", "bee") for number in range(9)]
    split = split_images(photos(tmp_path / "food", *names))
    assert split.skipped == []
    assert split.notes == ["the folder images/ is no class, those in it are"]


def test_boxes_beside_images_are_no_boxes_that_are_not_there(tmp_path):
    for part in ("train", "valid"):
        scenes.write(tmp_path / "boxed" / part, count=2, size=32)
    images = str(tmp_path / "boxed")
    split = split_images(images)
    assert split.boxed == ("coco", pair_of(f"{images}/train", f"{images}/valid"))
    asked = Experiment(out=str(tmp_path / "lab"), images=Images(images))
    assert asked.annotated_pairs == {"coco": split.boxed.pair}
    assert "no boxes" not in " ".join(asked.skipped)
    build_sets(images, tmp_path / "sets")
    split = split_images(str(tmp_path / "sets"))
    assert split.boxed == (
        "coco",
        pair_of(str(tmp_path / "sets/train"), str(tmp_path / "sets/valid")),
    )
    assert split.notes == []
    assert split_images(photos(tmp_path / "photos", "ant/1", "bee/1")).boxed is None


def pair_of(train: str, val: str) -> AnnotatedPair:
    return AnnotatedPair({"source": val}, {"source": train})


def test_of_one_list_with_boxes_a_fifth_is_scored_on_and_not_trained_on(tmp_path):
    scenes.write(tmp_path / "boxed", count=12, size=32)
    source = str(tmp_path / "boxed")
    split = split_images(source)
    train = {"source": source, "share": [0, 0.8]}
    assert split.boxed.pair == AnnotatedPair({"source": source, "share": [0.8, 1]}, train)
    assert split.parts == {"train": train}
    assert "20 % of the images are held out, to score on their boxes" in split.notes[-1]


def test_a_val_with_boxes_that_is_named_is_scored_on(tmp_path):
    for part in ("some", "others"):
        scenes.write(tmp_path / part, count=2, size=32)
    some, others = str(tmp_path / "some"), str(tmp_path / "others")
    split = split_images(some, others)
    assert split.boxed.pair == pair_of(some, others)
    assert split.parts == {"train": {"source": some}}


def test_a_single_set_with_boxes_is_looked_at_and_what_is_left_out_is_told(tmp_path):
    scenes.write(tmp_path / "boxed", count=6, size=32)
    build(tmp_path / "boxed", tmp_path / "set")
    source = str(tmp_path / "set")
    asked = Experiment(out=str(tmp_path / "lab"), images=Images(source))
    assert asked.annotated_pairs == {"coco": AnnotatedPair({"source": source})}
    assert f"--coco-train {source} --coco-val LIST" in asked.skipped[-1]
    named = Experiment(
        out=str(tmp_path / "lab"),
        images=Images(source),
        detection=Detection(coco_train=source, coco_val=source),
    )
    assert named.annotated_pairs == {"coco": pair_of(source, source)}


def test_lists_beside_the_images_are_named_and_not_said_to_be_none(tmp_path):
    images = photos(tmp_path / "coco", "train2017/1", "val2017/1")
    asked = Experiment(out=str(tmp_path / "lab"), images=Images(images))
    assert asked.skipped[-1] == "detection and attention: the images have no boxes"
    (tmp_path / "coco/annotations").mkdir()
    for name in ("instances_train2017", "instances_val2017", "captions_val2017"):
        (tmp_path / f"coco/annotations/{name}.json").write_text("{}")
    annotations = f"{images}/annotations/instances_"
    told = Experiment(out=str(tmp_path / "lab"), images=Images(images)).skipped[-1]
    assert f"--coco-train {annotations}train2017.json" in told
    assert f"--coco-val {annotations}val2017.json" in told


def test_one_class_is_told_and_not_evaluated(tmp_path):
    parts, skipped, *_ = split_images(photos(tmp_path / "images", "ant/1", "ant/2"))
    assert parts.keys() == {"train"}
    assert "all images are of one class, ant: any encoder would be right" in skipped[-1]


def test_the_images_of_a_table_may_be_anywhere(tmp_path):
    root = photos(tmp_path / "elsewhere", *(f"{number}" for number in range(20)))
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables/labels.csv"
    lines = [f"{number}.png,{'ant' if number % 2 else 'bee'}" for number in range(20)]
    table.write_text("".join(f"{line}\n" for line in ("image,label", *lines)))
    with pytest.raises(ShardError, match="--image-root"):
        split_images(str(table))
    parts, *_ = split_images(str(table), image_root=root)
    inputs = {"source": str(table), "image_root": root}
    assert parts == {"train": inputs | {"share": [0, 0.8]}, "val": inputs | {"share": [0.8, 1]}}
    parts, *_ = split_images(str(table), str(table), root)
    assert parts == {"train": inputs, "val": inputs}
    folder = photos(tmp_path / "folder", "ant/1", "bee/1")
    assert split_images(folder, str(table), root).parts == {
        "train": {"source": folder},
        "val": inputs,
    }
    with pytest.raises(ShardError, match="leave --image-root out"):
        split_images(folder, image_root=root)


def test_too_few_labels_to_hold_some_out_are_told(tmp_path):
    few = photos(tmp_path / "few", "ant/1", "bee/1")
    some = photos(tmp_path / "some", "ant/1", "bee/1", *(f"{n}" for n in range(30)))
    for images in (few, some):
        parts, skipped, *_ = split_images(images)
        assert parts == {"train": {"source": images}}
        assert "too few images have labels to hold some out" in skipped[-1]


def test_a_pipeline_lists_its_images_once_to_know_its_stages(tmp_path, monkeypatch):
    images = photos(tmp_path / "images", *(f"{name}/{n}" for name in ("a", "b") for n in range(9)))
    listed = []
    listing = storage.listing

    def counting(folder, *, deep=False):
        if deep and str(folder).startswith(images):
            listed.append(str(folder))
        return listing(folder, deep=deep)

    monkeypatch.setattr(storage, "listing", counting)
    with listing_once():
        # the command line checks what it is asked, and the flow does so again
        parts = [split_images(images).parts for _ in range(2)][-1]
        identities = [input_identity("source", images, inputs) for inputs in parts.values()]
    assert listed.count(images) == 1
    alone = [input_identity("source", images, inputs) for inputs in parts.values()]
    assert identities == alone
    assert len({*identities}) == 2
