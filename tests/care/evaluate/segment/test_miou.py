"""Intersection over union beside a naive loop over pixels and torchmetrics."""

import csv
import io
import numpy as np
import pytest
import torch
from PIL import Image
from care.evaluate.miou import (
    SegmentationScores,
    add_up,
    count_pixels,
    draw_pictures,
    make_small,
)
from care.evaluate.resampling import resamples

CLASSES = ("ground", "ant", "bee", "cat")


def some_images(count=5, seed=0):
    """Labels and predictions of sizes of their own; nobody shows or predicts the last class."""
    rng = np.random.default_rng(seed)
    images = []
    for number in range(count):
        size = (7 + number, 9)
        labels = rng.choice(np.array([0, 1, 2, 255], np.uint8), size)
        flipped = rng.random(size) < 0.4
        predictions = np.where(flipped, rng.integers(0, 3, size), labels % 255).astype(np.uint8)
        images.append((labels, predictions))
    return images


def scores_of(images, classes=CLASSES):
    counts = add_up([count_pixels(*image, len(classes)) for image in images])
    return SegmentationScores(counts, classes, [f"image {n}" for n in range(len(images))])


def naive_ious(images):
    """By class, one pixel after the other."""
    hits, union = dict.fromkeys(range(4), 0), dict.fromkeys(range(4), 0)
    for labels, predictions in images:
        for label, prediction in zip(labels.flat, predictions.flat, strict=True):
            if label == 255:
                continue
            for number in {int(label), int(prediction)}:
                union[number] += 1
            hits[int(label)] += int(label == prediction)
    return {CLASSES[number]: hits[number] / union[number] for number in union if union[number]}


def test_the_figures_are_those_of_a_loop_over_pixels() -> None:
    images = some_images()
    scores = scores_of(images)
    wanted = naive_ious(images)
    assert scores.ious() == pytest.approx(wanted)
    assert "cat" not in wanted
    measures = scores.measures()
    assert measures["miou"] == pytest.approx(100 * np.mean([*wanted.values()]), abs=1e-3)
    labels, predictions = (
        np.concatenate([x.ravel() for x in axis]) for axis in zip(*images, strict=True)
    )
    right = (labels == predictions)[labels != 255].mean()
    assert measures["pixels"] == pytest.approx(100 * right, abs=1e-3)


def test_the_figures_are_torchmetrics() -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    images = some_images(seed=1)
    metric = classification.MulticlassJaccardIndex(4, average=None, ignore_index=255)
    mean = classification.MulticlassJaccardIndex(4, average="macro", ignore_index=255)
    for labels, predictions in images:
        for one in (metric, mean):
            one.update(torch.from_numpy(predictions).long(), torch.from_numpy(labels).long())
    scores = scores_of(images)
    wanted = dict(zip(CLASSES, metric.compute().tolist(), strict=True))
    assert scores.ious() == pytest.approx({name: wanted[name] for name in scores.ious()})
    assert scores.measures()["miou"] == pytest.approx(100 * float(mean.compute()), abs=1e-3)


def test_a_draw_is_the_figure_of_images_that_are_there_several_times() -> None:
    images = some_images()
    drawn = scores_of(images).resampled()
    for figure, weights in zip(drawn[:5], resamples(len(images)), strict=False):
        repeated = [image for image, n in zip(images, weights, strict=True) for _ in range(n)]
        wanted = 100 * np.mean([*naive_ious(repeated).values()])
        assert figure == pytest.approx(wanted, abs=1e-3)


def test_a_class_that_is_only_predicted_counts_as_missed_everywhere() -> None:
    labels = np.zeros((4, 4), np.uint8)
    predictions = labels.copy()
    predictions[0] = 3
    assert scores_of([(labels, predictions)]).ious() == {"ground": 0.75, "cat": 0.0}


def test_nothing_is_scored_where_nothing_counts() -> None:
    border = np.full((4, 4), 255, np.uint8)
    assert scores_of([(border, np.zeros_like(border))]).measures() == {"miou": 0.0, "pixels": 0.0}


def test_what_is_left_are_tables_of_all_pixels() -> None:
    images = some_images()
    files = scores_of(images).files()
    rows = list(csv.DictReader(io.StringIO(files["confusion.csv"].decode())))
    pairs = {(row["class"], row["prediction"]): int(row["pixels"]) for row in rows}
    labels, predictions = (
        np.concatenate([x.ravel() for x in axis]) for axis in zip(*images, strict=True)
    )
    for (label, prediction), pixels in pairs.items():
        numbers = CLASSES.index(label), CLASSES.index(prediction)
        assert pixels == ((labels == numbers[0]) & (predictions == numbers[1])).sum()
    assert sum(pairs.values()) == (labels != 255).sum()
    of_images = list(csv.DictReader(io.StringIO(files["images.csv"].decode())))
    assert [row["key"] for row in of_images] == [f"image {n}" for n in range(5)]
    right = [((a == b) & (a != 255)).sum() for a, b in images]
    assert [int(row["right"]) for row in of_images] == right


def test_the_picture_has_an_image_its_labels_and_the_predictions() -> None:
    pixels = np.full((20, 30, 3), 77, np.uint8)
    labels = np.zeros((20, 30), np.uint8)
    labels[:10] = 1
    labels[:, 20:] = 255
    seen = [make_small(0, pixels, labels, np.full_like(labels, 2))] * 2
    sheet = np.asarray(Image.open(io.BytesIO(draw_pictures(seen, 3))))
    assert sheet.shape == (44, 98, 3)
    assert sheet[5, 5].tolist() == [77] * 3
    assert sheet[5, 34 + 5].tolist() == [128, 0, 0]
    assert sheet[15, 34 + 5].tolist() == [0, 0, 0]
    assert sheet[5, 34 + 25].tolist() == [255, 255, 255]
    assert sheet[24 + 5, 68 + 5].tolist() == [0, 128, 0]
