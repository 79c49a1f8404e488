"""A linear classifier as weights of features as they are."""

import numpy as np
import pytest
import torch
from PIL import Image
import shards
from care import CareError, resnet18
from care.evaluate import extract, linear_on_features
from care.evaluate.class_probe import train_probe


@pytest.fixture(scope="module")
def coloured_set(tmp_path_factory):
    """Images of three classes, which their colours tell."""
    root = tmp_path_factory.mktemp("coloured")
    rng = np.random.default_rng(0)
    for number in range(30):
        colour = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200)][number % 3])
        pixels = (colour + rng.integers(0, 50, (24, 24, 3))).astype(np.uint8)
        path = root / "photos" / ("red", "green", "blue")[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    shards.build(root / "photos", root / "set", workers=1)
    return shards.open(root / "set")


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return resnet18(small=True, half=True).eval()


def test_it_predicts_what_the_protocol_of_linear_does(coloured_set, encoder) -> None:
    probe = train_probe(encoder, coloured_set, size=16)
    features = extract(encoder, coloured_set, size=16)
    accuracy, _ = linear_on_features(features, features)
    right = probe.predict(features.x) == features.y
    assert 100 * float(right.double().mean()) == pytest.approx(accuracy.top1, abs=1e-3)
    assert probe.classes == ("blue", "green", "red")
    assert probe.weights.shape == (3, encoder.features)
    assert not probe.weights.requires_grad


def test_a_class_has_its_number_or_is_refused(coloured_set, encoder) -> None:
    probe = train_probe(encoder, coloured_set, size=16)
    assert probe.number_of("green") == 1
    with pytest.raises(CareError, match="wanted a class among blue, green, red, got 'pink'"):
        probe.number_of("pink")


def test_a_set_without_classes_is_refused(coloured_set, encoder, tmp_path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "photos" / "a.png")
    shards.build(tmp_path / "photos", tmp_path / "set", workers=1)
    with pytest.raises(CareError, match="has no image with a class, which a probe learns from"):
        train_probe(encoder, shards.open(tmp_path / "set"), size=16)
