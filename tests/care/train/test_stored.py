"""Encoders of our own folders: kept checkpoints, the sequential design, classifiers, detectors."""

import shutil
from dataclasses import replace
import pytest
import torch
from foreign_weights import assert_same
from small_runs import SIZE, make_streams
from torch import nn
from care import BYOL, CareError, build_encoder
from care.evaluate.detector import Detector
from care.evaluate.detector_forms import DetectorShape
from care.evaluate.linear_heads import LinearHeads
from care.evaluate.trial import Classifier
from care.sequential import sequential_stream
from care.train import checkpoint, load_encoder
from care.train.losses import Losses
from care.train.mirror import push
from care.train.stored import encoder_note, set_size

SMALL = "resnet18-small-half"
DETECTOR = DetectorShape(proposals=8, channels=16, hidden=16)
NAMELESS = {"encoder": "0123456789abcdef" * 4}  # what an evaluation records: a digest


def make_encoder(name=SMALL, size=40):
    torch.manual_seed(3)
    encoder = build_encoder(name)
    encoder(torch.randn(2, 3, 64, 64))  # statistics other than the initial ones
    encoder.size = size
    return encoder


def pretraining():
    c, t = make_streams()
    return Losses(c, t, 100), c.backbone.online


def pretraining_of_another_cnn():
    encoder = make_encoder("torchvision:squeezenet1_1:features.12", size=64)
    c, _ = make_streams()
    c.backbone.online = encoder
    return Losses(c, None, 0), encoder


def sequential():
    c = sequential_stream(f"{SMALL}:layer4", size=32, blocks=1, objective=BYOL(hidden=8))
    nn.init.ones_(c.backbone.target.encoder.conv1.weight)  # the online one is kept
    return Losses(c, None, 0), c.backbone.online.encoder


def classifier():
    encoder = make_encoder()
    return Classifier(encoder, 3), encoder


def detector(head):
    encoder = make_encoder()
    return Detector(encoder, 2, replace(DETECTOR, head=head)), encoder


MODELS = {
    "pretraining": pretraining,
    "another CNN": pretraining_of_another_cnn,
    "sequential": sequential,
    "classifier": classifier,
    "c4": lambda: detector("c4"),
    "fpn": lambda: detector("fpn"),
}


def save(folder, model, step=2, **settings):
    """A checkpoint as a run of this version leaves it."""
    note = encoder_note(model)
    manifest = {"step": step, "settings": {**NAMELESS, **settings}, "encoder": note}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    checkpoint.save(folder, checkpoint.snapshot(model, optimizer), manifest, keep=9)


@pytest.mark.parametrize("kind", MODELS)
def test_an_encoder_comes_back_from_any_training_with_its_name_and_size(tmp_path, kind):
    model, encoder = MODELS[kind]()
    set_size(model, 40)
    save(tmp_path, model, size=800, head="c4")
    loaded = load_encoder(tmp_path)
    assert_same(loaded.state_dict(), encoder.state_dict())
    assert (loaded.name, loaded.size, loaded.training) == (encoder.name, 40, False)


@pytest.mark.parametrize("kind", ["sequential", "classifier", "c4", "fpn"])
def test_an_encoder_comes_back_from_what_earlier_versions_left(tmp_path, kind, capsys):
    model, encoder = MODELS[kind]()
    settings = {"size": 800, "head": kind} if kind in ("c4", "fpn") else {"size": 40}
    if kind == "sequential":
        settings["encoder"] = ""
    note = {"step": 1, "settings": NAMELESS | settings}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    checkpoint.save(tmp_path, checkpoint.snapshot(model, optimizer), note)
    loaded = load_encoder(tmp_path)
    assert_same(loaded.state_dict(), encoder.state_dict())
    # of a detector the short side of its images is no size of the encoder's
    assert loaded.size == (224 if kind in ("c4", "fpn") else 40)


@pytest.fixture
def run(tmp_path):
    """A run with two checkpoints, whose encoders differ; and those."""
    model, _ = classifier()
    save(tmp_path / "run", model, step=2)
    first = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    nn.init.ones_(model.encoder.conv1.weight)
    save(tmp_path / "run", model, step=4)
    return tmp_path / "run", first, model.encoder.state_dict()


def test_a_kept_checkpoint_is_an_encoder_by_its_folder_or_its_file(run):
    folder, first, second = run
    step = folder / "checkpoints" / "step-00000002"
    for source in (step, step / "model.safetensors", f"{step}/model.safetensors"):
        loaded = load_encoder(source)
        assert_same(loaded.state_dict(), first)
        assert loaded.size == 40
    assert_same(load_encoder(folder).state_dict(), second)


def test_a_kept_checkpoint_needs_no_optimizer_but_is_verified(run):
    step = run[0] / "checkpoints" / "step-00000002"
    (step / "optimizer.safetensors").unlink()
    assert_same(load_encoder(step).state_dict(), run[1])
    with (step / "model.safetensors").open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    with pytest.raises(CareError, match=r"step-00000002 is a damaged checkpoint: model\.safet"):
        load_encoder(step)


def test_a_checkpoint_in_a_bucket_is_an_encoder(run):
    push(run[0], "memory://kept/run")
    step = "memory://kept/run/checkpoints/step-00000002"
    for source in (step, f"{step}/model.safetensors"):
        assert_same(load_encoder(source).state_dict(), run[1])


def test_a_fine_tuning_is_an_encoder_by_its_own_folder(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "few" / "all labels")
    assert_same(load_encoder(tmp_path / "few").state_dict(), run[2])
    push(run[0], "memory://few/run/all labels")
    assert_same(load_encoder("memory://few/run").state_dict(), run[2])


def test_a_folder_that_has_a_run_deeper_inside_is_refused_with_its_place(run):
    with pytest.raises(CareError, match="holds no checkpoint; there is one in run; wanted a run"):
        load_encoder(run[0].parent)


def test_linear_classifiers_are_no_encoder(tmp_path):
    save(tmp_path, LinearHeads(8, 3, (0.1,), norm=False, seed=0), size=32)
    with pytest.raises(CareError, match="is a run without an encoder, such as one of linear"):
        load_encoder(tmp_path)


def test_a_run_records_the_encoder_and_its_size(whole):
    assert checkpoint.latest(whole).manifest["encoder"] == {"name": SMALL, "size": SIZE}
