"""Trainings on views of a height and a width, and what of them remembers both."""

import json
import pytest
from flat import gathered
from safetensors import safe_open
from small_runs import SETTINGS, make_streams, result, rows, train
import shards
from care import CareError, c_stream_for
from care.evaluate import Crops, Labels, finetune, knn, linear
from care.train import View, load_encoder, pretrain
from care.train.batches import batches, bytes_of_views, noise_views
from care.train.checks import check_encoder
from care.train.load import trained_size
from care.train.recipes import RECIPES, recipe_views
from care.train.views import VIEWS

WIDE = "16x32"


def train_wide(data, run, size=WIDE, **changes):
    streams = make_streams(size=size)
    return pretrain(data, run, *streams, **gathered(SETTINGS | {"size": size} | changes))


@pytest.fixture(scope="module")
def wide_run(image_set, tmp_path_factory):
    """A finished run on views of 16 × 32 px."""
    run = tmp_path_factory.mktemp("wide") / "run"
    train_wide(shards.open(image_set), run)
    return run


def test_views_have_their_height_and_their_width(data):
    views = (*VIEWS, View(size="8x24"))
    ((_, batch),) = batches(data, size=WIDE, batch_size=4, steps=1, views=views, workers=0)
    shapes = [tuple(view.shape) for view in batch]
    assert shapes == [(4, 3, 16, 32), (4, 3, 16, 32), (4, 3, 8, 24)]
    assert [tuple(noise.shape) for noise in noise_views(views, 4, WIDE)] == shapes
    assert bytes_of_views(views, WIDE) == 3 * (2 * 16 * 32 + 8 * 24)


def test_run_checkpoint_and_encoder_remember_both_sides(wide_run):
    (*_, manifest) = sorted(wide_run.glob("checkpoints/*/manifest.json"))
    recorded = json.loads(manifest.read_text())
    assert recorded["settings"]["size"] == WIDE
    assert recorded["encoder"] == {"name": "resnet18-small-half", "size": WIDE}
    with safe_open(wide_run / "encoder.safetensors", "pt") as file:
        assert json.loads(file.metadata()["care"])["size"] == WIDE
    assert trained_size(wide_run) == trained_size(wide_run / "encoder.safetensors") == WIDE
    assert load_encoder(wide_run).size == WIDE
    assert all(row["spread"] > 0 for row in rows(wide_run))


def test_the_same_size_in_another_form_goes_on_and_another_size_does_not(data, wide_run):
    before = result(wide_run)
    train_wide(data, wide_run, "16 X 32")
    assert result(wide_run) == before
    with pytest.raises(CareError, match=r"--size 16x32.*--size 16\b"):
        train(data, wide_run)


def test_a_square_in_words_is_the_run_of_its_side(data, tmp_path):
    train(data, tmp_path / "side", steps=2)
    train_wide(data, tmp_path / "square", "16x16", steps=2)
    assert result(tmp_path / "square") == result(tmp_path / "side")


def test_evaluations_show_the_size_of_the_training_and_say_it(data, wide_run, tmp_path):
    encoder = load_encoder(wide_run)
    protocols = [
        knn(encoder, data, data).protocol,
        knn(encoder, data, data, size="32x32").protocol,
        linear(encoder, data, data, tmp_path / "linear", fast=True, epochs=1).protocol,
        linear(encoder, data, data, tmp_path / "slow", lrs=(0.1,), epochs=1, batch_size=8).protocol,
        finetune(
            encoder,
            data,
            data,
            tmp_path / "finetune",
            labels=Labels(fraction=0.5),
            crops=Crops(size="32x16"),
            lrs=(0.1,),
            epochs=(1,),
            batch_size=4,
        ).protocol,
    ]
    shown = [
        [word for word in text.split() if word[0].isdigit() and "x" in word] for text in protocols
    ]
    assert shown == [["16x32"], [], ["16x32"], ["16x32"], ["32x16"]]
    assert "crops of 32 px" in protocols[1]
    assert trained_size(tmp_path / "finetune") == "32x16"


def test_small_crops_and_patches_are_in_proportion_to_either_side():
    (*_, small) = recipe_views(RECIPES["swav"], size="112x224", small_crops=1)
    assert small.size == "48x96"
    (*_, square) = recipe_views(RECIPES["swav"], size=112, small_crops=1)
    assert square.size == 48
    (*_, puzzle) = recipe_views(RECIPES["pirl"], size="112x224")
    assert (puzzle.size, puzzle.patch) == ("128x255", 32)


def test_patches_come_from_all_of_a_view_that_is_not_square(data):
    views = (View(size="24x48", patch=6, scale=(1, 1), jitter_p=0, blur_p=0, gray_p=0),)
    ((_, (patches,)),) = batches(data, size=WIDE, batch_size=4, steps=1, views=views, workers=0)
    assert patches.shape == (4, 9, 3, 6, 6)


def test_a_vision_transformer_says_that_its_views_are_square(data, tmp_path):
    pytest.importorskip("timm")
    with pytest.raises(CareError, match=r"vit-tiny8 has as many positions .*16x32"):
        check_encoder("vit-tiny8", size=WIDE, init=None)
    settings = gathered(SETTINGS | {"size": WIDE})
    with pytest.raises(CareError, match="wanted square views, such as 16 px, got 16x32"):
        pretrain(data, tmp_path / "run", c_stream_for("vit-tiny8"), **settings)
    assert not (tmp_path / "run").exists()
