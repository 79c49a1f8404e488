"""Segmentation from an encoder to its figures, and runs that are interrupted and go on."""

import copy
import os
import shutil
import signal
from importlib import import_module
import numpy as np
import pytest
import torch
from PIL import Image
from processes import together
from safetensors.torch import load_file
from segmenting import (
    SETTINGS,
    STEPS,
    CrashError,
    crash,
    judge,
    make_encoder,
    model_at,
    result,
    rows,
    saved,
    train,
)
from torch.nn import functional as F
from care import CareError
from care.evaluate.segment import _predict, segment
from care.evaluate.segmenter import Segmenter, SegmenterShape
from care.train import Stopped, load_encoder, ranks
from shards.pixel_report import PixelReport
from shards.segmentation import SegmentationSet


class Halves:
    """Red on the left, blue on the right, of sizes of their own; what is above does not count."""

    pixels = PixelReport({})

    def __init__(self, labels=(0, 1)):
        self.numbers = labels

    def image(self, number):
        pixels = np.zeros((28 + number, 36, 3), np.uint8)
        middle = 10 + 2 * number
        pixels[:, :middle, 0] = 255
        pixels[:, middle:, 2] = 255
        return Image.fromarray(pixels)

    def labels(self, number):
        labels = np.full((28 + number, 36), self.numbers[0], np.uint8)
        labels[:, 10 + 2 * number :] = self.numbers[1]
        labels[:4] = 255
        return labels


def halves(count, digest="halves", classes=("red", "blue"), **options):
    keys = tuple(f"{number}" for number in range(count))
    return SegmentationSet("halves", classes, keys, Halves(**options), {}, digest)


@pytest.mark.parametrize("head", ["fcn", "linear"])
def test_what_can_be_seen_is_learned(tmp_path, head) -> None:
    encoder = make_encoder()
    before = copy.deepcopy(encoder.state_dict())
    evaluation = judge(
        encoder,
        halves(8),
        halves(5),
        tmp_path,
        **SETTINGS | {"iterations": 20, "head": head, "side": None, "crop": 32},
    )
    assert evaluation.measures["miou"] > 75
    assert evaluation.measures["pixels"] > 85
    assert evaluation.by_class.keys() == {"red", "blue"}
    assert evaluation.measures["miou"] == pytest.approx(
        np.mean([*evaluation.by_class.values()]), abs=2e-3
    )
    assert len(evaluation.resampled) == 200
    assert evaluation.task == f"segmentation, {'FCN' if head == 'fcn' else 'linear'}"
    assert "stride 8, 20 iterations of 4 crops of 32 px" in evaluation.protocol
    files = evaluation.outcomes.files()
    assert files.keys() == {"confusion.csv", "images.csv", "segmentation.png"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    # the run is an encoder: the trained one, or the same
    trained = load_encoder(tmp_path).state_dict()
    assert all(torch.equal(trained[name], before[name]) for name in before) == (head == "linear")


def test_the_figures_are_of_the_pixels_of_each_image_at_its_own_size(sets, whole) -> None:
    run, evaluation = whole
    model = Segmenter(make_encoder(), 9, SegmenterShape(channels=8)).eval()
    model.load_state_dict(model_at(run, STEPS))
    confusion = np.zeros((9, 9), np.int64)
    for number in range(len(sets[1].keys)):
        image, labels = sets[1].sample(number)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            predictions = model(pixels)[0].argmax(0).numpy()
        np.add.at(confusion, (labels.ravel(), predictions.ravel()), 1)
    hits = confusion.diagonal()
    unions = confusion.sum(0) + confusion.sum(1) - hits
    wanted = 100 * (hits / np.maximum(unions, 1))[unions > 0].mean()
    assert evaluation.measures["miou"] == pytest.approx(wanted, abs=1e-3)
    assert evaluation.measures["pixels"] == pytest.approx(
        100 * hits.sum() / confusion.sum(), abs=1e-3
    )


def test_predictions_of_a_resized_image_are_brought_back_to_its_size() -> None:
    model = Segmenter(make_encoder(), 3, SegmenterShape(channels=8)).eval()
    pixels = torch.randint(0, 256, (3, 33, 49), dtype=torch.uint8)
    with torch.no_grad():
        predictions = _predict(model, pixels, (50, 70))
        logits = model(pixels[None] / 255)
        wanted = F.interpolate(logits, size=(50, 70), mode="bilinear")[0].argmax(0)
    assert (predictions == wanted.numpy()).all()


def test_rates_fall_twice_and_norms_do_not_decay(whole) -> None:
    run, _ = whole
    rates = [row["lr"] for row in rows(run)]
    full = 0.2 * 4 / 16
    # of six steps after 4.2 and after 5.4
    assert rates == pytest.approx([full] * 5 + [full / 10])
    assert all(row["pixels"] == pytest.approx(row["total"]) for row in rows(run))


@pytest.mark.parametrize(
    ("step", "workers"), [(3, 1), pytest.param(5, 0, marks=pytest.mark.resume)]
)
def test_a_run_that_crashed_ends_with_the_same_bits(
    whole, sets, tmp_path, at_step, step, workers
) -> None:
    at_step([step], crash)
    with pytest.raises(CrashError):
        train(sets, tmp_path, workers=workers)
    assert len(rows(tmp_path)) == step
    at_step([], crash)
    torch.rand(3)
    assert train(sets, tmp_path, workers=1 - workers) == whole[1]
    assert result(tmp_path) == result(whole[0])


def test_two_processes_train_and_score_as_one(sets, tmp_path) -> None:
    settings = {"iterations": 2, "lr": 0.05}
    alone = train(sets, tmp_path / "alone", **settings)

    def work():
        torch.set_num_threads(1)
        return train(sets, tmp_path / "both", **settings), ranks.world()

    (one, world), (two, _) = together(2, work)
    assert world == 2
    assert one == two
    assert one.outcomes.keys == alone.outcomes.keys
    assert len(one.outcomes.seen) == 6
    wanted = model_at(tmp_path / "alone", 2)
    for name, value in model_at(tmp_path / "both", 2).items():
        torch.testing.assert_close(
            value, wanted[name], rtol=2e-3, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    with pytest.raises(Exception, match="cannot cut 5 images a step into 2 equal parts"):
        together(2, lambda: train(sets, tmp_path / "other", batch_size=5))


def test_a_finished_run_only_scores(whole, sets, tmp_path, at_step) -> None:
    run = shutil.copytree(whole[0], tmp_path / "run")
    at_step([*range(STEPS)], crash)
    assert train(sets, run) == whole[1]
    assert result(run) == result(whole[0])


def test_a_request_to_stop_saves_and_the_same_call_continues(
    whole, sets, tmp_path, at_step
) -> None:
    at_step([2], lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped, match="stopped on request after step 3 of 6 and saved"):
        train(sets, tmp_path, checkpoint_every=100)
    assert saved(tmp_path) == ["step-00000003"]
    at_step([], crash)
    assert train(sets, tmp_path, checkpoint_every=100) == whole[1]
    assert result(tmp_path) == result(whole[0])


CHANGES = {
    "head": "linear",
    "channels": 4,
    "dilated": False,
    "crop": 32,
    "side": 24,
    "iterations": 8,
    "batch_size": 6,
    "lr": 0.1,
    "weight_decay": 0.0,
    "seed": 1,
    "precision": "bf16",
}


@pytest.mark.parametrize("field", CHANGES)
def test_other_settings_are_refused_by_name(whole, sets, field) -> None:
    before = result(whole[0])
    name = {"iterations": "steps"}.get(field, field)
    with pytest.raises(CareError, match=rf"with {name}=.*; this call has {name}={CHANGES[field]};"):
        train(sets, whole[0], **{field: CHANGES[field]})
    assert result(whole[0]) == before


def test_protocols_are_of_the_data_and_of_the_head(tmp_path, monkeypatch) -> None:
    class ReachedError(Exception):
        pass

    seen = {}

    def run(path, model, optimizer, settings, **options):
        seen.update(settings)
        raise ReachedError

    monkeypatch.setattr(import_module("care.evaluate.segment"), "Run", run)

    def settings(head, **changes):
        data = halves(3)._replace(**changes)
        with pytest.raises(ReachedError):
            segment(make_encoder(), data, data, tmp_path, shape=SegmenterShape(head))
        return [
            seen[name] for name in ("steps", "crop", "batch_size", "lr", "weight_decay", "side")
        ]

    assert settings("fcn") == [30_000, 513, 16, 0.003, 1e-4, None]
    assert settings("linear") == [30_000, 513, 16, 0.1, 1e-4, None]
    assert settings("fcn", cityscapes=True) == [90_000, 769, 16, 0.01, 1e-4, None]


def test_sets_that_do_not_go_together_are_refused(tmp_path) -> None:
    with pytest.raises(CareError, match="halves and halves name different classes"):
        judge(make_encoder(), halves(8), halves(8, classes=("a", "b")), tmp_path, **SETTINGS)
    one = halves(8, classes=("red",), labels=(0, 0))
    with pytest.raises(CareError, match="wanted two classes of pixels and more, got red in halves"):
        judge(make_encoder(), one, one, tmp_path, **SETTINGS)
    with pytest.raises(CareError, match="no pixel of halves has a class that counts"):
        judge(make_encoder(), halves(8), halves(3, labels=(255, 255)), tmp_path, **SETTINGS)


def test_nothing_but_the_labels_of_train_is_learned(sets, whole, tmp_path) -> None:
    """Other images of val leave the same weights."""
    train((sets[0], sets[0]), tmp_path)
    newest = saved(tmp_path)[-1]
    weights = load_file(tmp_path / "checkpoints" / newest / "model.safetensors")
    wanted = model_at(whole[0], STEPS)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in weights.items())
