"""What stops the training of a detector, and what does not."""

import shutil
import numpy as np
import pytest
from detecting import SETTINGS, judge, rows, train
from processes import together
from torch import nn
import shards
from care import CareError, build_encoder
from care.evaluate.pictures import Examples, ResizedPicture
from care.tapped import TappedEncoder
from shards.pixels import PixelRule


def without_boxes(picture):
    none = np.zeros(0, np.bool_)
    return picture._replace(
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        difficult=none,
        crowd=none,
        masks=[],
    )


def all_crowds(data):
    return data._replace(
        pictures=[picture._replace(crowd=np.ones_like(picture.crowd)) for picture in data.pictures]
    )


def without_masks(data, *numbers):
    pictures = [
        p._replace(masks=[[]] * len(p.masks)) if n in numbers else p
        for n, p in enumerate(data.pictures)
    ]
    return data._replace(pictures=pictures)


def test_other_classes_are_refused(sets, tmp_path):
    renamed = sets[1]._replace(classes=(*sets[1].classes[1:], sets[1].classes[0]))
    with pytest.raises(
        CareError, match=r"name different classes; read the second with the classes of the first"
    ):
        train((sets[0], renamed), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sets_whose_images_became_other_pixels_are_told(sets, tmp_path, capsys):
    by_rules = [
        data._replace(shards=None, rule=PixelRule(bands=bands))
        for data, bands in zip(sets, ((3, 2, 1), ()), strict=True)
    ]
    layers = [nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    encoder = TappedEncoder(nn.Sequential(*layers), "0")
    # c4 is refused of it, after the sets were looked at
    with pytest.raises(CareError, match="no stages"):
        judge(encoder, *by_rules, tmp_path, **SETTINGS)
    said = " ".join(capsys.readouterr().err.split())
    assert "bands became colours in train (3,2,1) and val (the first ones)" in said


@pytest.mark.parametrize("which", [0, 1])
def test_a_set_without_a_box_that_counts_is_refused(sets, tmp_path, which):
    empty = sets[which]._replace(
        path=tmp_path / "empty.json",
        pictures=[without_boxes(picture) for picture in sets[which].pictures],
    )
    for data in (empty, all_crowds(sets[which])._replace(path=empty.path)):
        pair = (data, sets[1]) if which == 0 else (sets[0], data)
        with pytest.raises(
            CareError, match=r"empty\.json has no box that counts; detection needs some"
        ):
            train(pair, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_masks_that_are_missing_are_refused_and_boxes_without_one_are_left_out(sets, tmp_path):
    everywhere = [without_masks(data, *range(24)) for data in sets]
    for pair in (
        (everywhere[0], sets[1]),
        (sets[0], everywhere[1]),
        (sets[0], without_masks(sets[1], 2)),
    ):
        lacking = pair[0] if pair[0] is not sets[0] else pair[1]
        with pytest.raises(
            CareError,
            match=rf"{lacking.path} has boxes without a mask, polygons or an RLE; add them, or "
            "detect without",
        ):
            train(pair, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(everywhere, tmp_path / "boxes", mask=False, iterations=1)
    some = without_masks(sets[0], 2)
    for mask in (False, True):
        examples = Examples(some, 100, mask)
        assert [len(examples[ResizedPicture(n, 32)][1]["labels"]) > 0 for n in (1, 2)] == [
            True,
            not mask,
        ]


def test_an_encoder_of_four_bands_is_refused(sets, tmp_path):
    encoder = build_encoder("resnet18-small-half-rgbn")
    with pytest.raises(CareError, match="takes images of 4 bands, got 3"):
        judge(encoder, *sets, tmp_path, **SETTINGS)
    assert not list(tmp_path.iterdir())


def test_the_c4_form_is_refused_of_what_is_no_resnet(sets, tmp_path):
    layers = [
        nn.Conv2d(3, 4, 3, 2, 1),
        nn.Conv2d(4, 4, 3, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    with pytest.raises(
        CareError, match=r"this encoder has no stages to cut into the C4 form; use head='fpn'"
    ):
        judge(TappedEncoder(nn.Sequential(*layers), "1"), *sets, tmp_path, **SETTINGS)
    assert not list(tmp_path.iterdir())
    assert (
        judge(
            TappedEncoder(nn.Sequential(*layers), "1"),
            *sets,
            tmp_path,
            **SETTINGS | {"head": "fpn"},
        ).task
        == "COCO FPN"
    )


def test_batches_of_pictures_without_boxes_are_learned_from(sets, tmp_path):
    pictures = sets[0].pictures[:1] + [without_boxes(picture) for picture in sets[0].pictures[1:]]
    train(
        (sets[0]._replace(pictures=pictures), sets[1]),
        tmp_path,
        batch_size=2,
        iterations=3,
        proposals=8,
    )
    lines = rows(tmp_path)
    assert sum(line["box_reg"] == 0 for line in lines) >= 2
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert all(line["objectness"] > 0 for line in lines)


def test_a_loss_that_is_not_finite_is_named_and_not_saved(sets, tmp_path):
    with pytest.raises(
        CareError,
        match=r"the \w+ loss is (nan|inf) at step \d; lower lr or lengthen warmup, then start a "
        "new run",
    ):
        train(sets, tmp_path, lr=1e12, warmup=0, checkpoint_every=100)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_image_is_named(whole, sets, tmp_path, which, workers):
    run = shutil.copytree(whole[0], tmp_path / "run") if which == 1 else tmp_path / "run"
    broken = sets[which].pictures[5]
    (tmp_path / "broken.jpg").write_bytes(broken.path.read_bytes()[:200])
    pictures = [
        picture._replace(path=tmp_path / "broken.jpg") if picture is broken else picture
        for picture in sets[which].pictures
    ]
    pair = [*sets]
    pair[which] = sets[which]._replace(pictures=pictures)
    with pytest.raises(shards.ShardError, match=r"broken\.jpg: ") as caught:
        train(pair, run, workers=workers)
    assert "\n" not in str(caught.value)


def test_a_batch_that_processes_cannot_share_is_refused(sets, tmp_path):
    def work():
        with pytest.raises(
            CareError,
            match="cannot cut 5 images a step into 2 equal parts; use a multiple of the processes",
        ):
            train(sets, tmp_path / "run", batch_size=5)
        return (tmp_path / "run").exists()

    assert together(2, work) == [False, False]
