"""Features of a shard at a time: a worker may live longer than what lies at an encoder's path."""

from pathlib import Path
import pytest
import torch
import shards
from care import resnet18
from care.evaluate import extract
from care.train import load_encoder
from care.train.weights import save_encoder
from flows.works import features


@pytest.fixture
def inputs(photos: Path, tmp_path: Path):
    shards.build(photos, tmp_path / "set", workers=1)
    encoder = str(tmp_path / "encoder.safetensors")
    return {"encoder": encoder, "train": str(tmp_path / "set"), "size": 32, "seed": 0}


def save_another(path: str, seed: int) -> None:
    torch.manual_seed(seed)
    save_encoder(path, resnet18(small=True, half=True), size=32)


def test_each_stage_has_the_features_of_the_encoder_that_is_there_now(inputs, tmp_path) -> None:
    for seed, folder in enumerate(("first", "second")):
        save_another(inputs["encoder"], seed)
        features.extract_shard(str(tmp_path / folder), inputs, "train", 0)
        data = shards.open(inputs["train"]).labelled()
        kept = sorted(path.name for path in (tmp_path / folder).iterdir())
        network = load_encoder(inputs["encoder"])
        extract(network, data, size=32, workers=0, cache=tmp_path / "now" / folder)
        assert kept == sorted(path.name for path in (tmp_path / "now" / folder).iterdir())
    assert next((tmp_path / "first").iterdir()).name not in kept


def test_the_pieces_of_a_stage_load_its_encoder_once(inputs, tmp_path, monkeypatch) -> None:
    save_another(inputs["encoder"], 0)
    loads = []
    load = features.encoder_on_device
    monkeypatch.setattr(features, "encoder_on_device", lambda *a: loads.append(a) or load(*a))
    for _ in range(2):
        features.extract_shard(str(tmp_path / "out"), inputs, "train", 0)
    assert len(loads) == 1
