"""Encoders of one command are judged at one size: a baseline at that of the run beside it."""

import json
import pytest
import torch
from torchvision import models
from care import CareError, build_encoder
from care.train import load
from care.train.load import trained_size
from care.train.weights import save_encoder
from flows.sizes import common_sizes


@pytest.fixture
def files(tmp_path):
    """Encoders of ours, trained at 48 and at 96 px, and somebody's."""
    encoder = build_encoder("resnet18-small-half")
    for size in (48, 96):
        save_encoder(tmp_path / f"{size}.safetensors", encoder, size=size)
    torch.save(models.resnet18().state_dict(), tmp_path / "theirs.pth")
    return {
        name: f"{tmp_path}/{name}" for name in ("48.safetensors", "96.safetensors", "theirs.pth")
    }


def test_a_size_is_known_of_what_was_trained_here(files):
    assert [trained_size(file) for file in files.values()] == [48, 96, None]
    assert trained_size("random:resnet18") is None
    assert trained_size("supervised:resnet18") is None
    with pytest.raises(CareError, match="does not exist"):
        trained_size("nowhere")


def test_a_file_in_a_store_says_its_size_too():
    url = "memory://sizes/encoder.safetensors"
    save_encoder(url, build_encoder("resnet18-small-half"), size=48)
    assert trained_size(url) == 48


def test_no_weights_are_read_for_it(files, monkeypatch, tmp_path):
    manifest = {"step": 3, "settings": {"size": 32}}
    note = {"encoder": {"name": "resnet18-small-half", "size": 64}}
    for run, more in (("older", {}), ("run", note), ("tuned/all labels", note)):
        folder = tmp_path / run / "checkpoints" / "step-00000003"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps(manifest | more))
    for name in ("_read", "read_weights"):
        monkeypatch.setattr(load, name, None)
    assert [trained_size(file) for file in files.values()] == [48, 96, None]
    assert [trained_size(tmp_path / run) for run in ("older", "run", "tuned")] == [32, 64, 64]
    assert trained_size(tmp_path / "run" / "checkpoints" / "step-00000003") == 64


def test_baselines_take_the_size_of_the_first_run(files, capsys):
    ours, larger, theirs = files.values()
    sources = ["random:resnet18-small-half", ours, theirs, larger]
    assert common_sizes(sources) == [48, 48, 48, 96]
    said = " ".join(capsys.readouterr().err.split())
    assert f"random:resnet18-small-half, {theirs} are judged at 48 px, the size of {ours}" in said


def test_without_a_run_each_keeps_its_usual_size(files, capsys):
    assert common_sizes(["random:resnet18", files["theirs.pth"]]) == [None, None]
    assert common_sizes([files["96.safetensors"]]) == [96]
    assert "judged at" not in capsys.readouterr().err
