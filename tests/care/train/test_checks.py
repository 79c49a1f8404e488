"""What a pipeline or a group of processes is told before its training."""

import sys
import pytest
import torch
from care import CareError, build_encoder
from care.train import weights
from care.train.checks import check_encoder, check_optimizer, check_processes, judged_network


@pytest.fixture
def file(tmp_path):
    """A file of the small encoder's weights."""
    weights.save_encoder(tmp_path / "a.safetensors", build_encoder("resnet18-small-half"), size=32)
    return tmp_path / "a.safetensors"


def test_encoders_that_can_be_judged_pass(file):
    for source in (str(file), "random:resnet18-small-half", "supervised:resnet18"):
        assert judged_network(source).name.startswith("resnet18")
    check_encoder("resnet18-small-half", size=32, init=file)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/run", "nowhere/run does not exist"),
        ("supervised:resnet51", "no encoder is called 'resnet51'"),
        ("random:resnet18:layer9", "wanted a tap among"),
        ("supervised:lab:resnet18", "no ImageNet weights for 'lab:resnet18', two .* supervised:r"),
        ("supervised:resnet18-gray", "no ImageNet weights for 'resnet18-gray'"),
    ],
)
def test_an_encoder_that_cannot_be_judged_is_named(source, message):
    with pytest.raises(CareError, match=message):
        judged_network(source)


def test_initial_weights_of_another_encoder_are_refused(file):
    with pytest.raises(CareError, match="wanted initial weights for the encoder resnet18-small,"):
        check_encoder("resnet18-small", size=32, init=file)


@pytest.mark.parametrize(("gpus", "nproc", "is_refused"), [(2, 2, False), (2, 3, True)])
def test_more_processes_than_gpus_are_refused_unless_they_compute_on_cpus(
    monkeypatch, gpus, nproc, is_refused
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    check_processes(nproc, "cpu")
    if is_refused:
        with pytest.raises(CareError, match="a GPU for each of 3 processes, got 2"):
            check_processes(nproc, None)
    else:
        check_processes(nproc, None)


@pytest.mark.parametrize(
    ("objective", "name", "is_timms"),
    [("simclr", None, True), ("byol", "larc", True), ("swav", "sgd", False), ("byol", None, False)],
)
def test_an_optimizer_without_its_library_is_told(monkeypatch, objective, name, is_timms):
    check_optimizer(objective, name)
    monkeypatch.setitem(sys.modules, "timm.optim.lars", None)
    if is_timms:
        with pytest.raises(CareError, match="LARS and LARC are timm's, which is not installed"):
            check_optimizer(objective, name)
    else:
        check_optimizer(objective, name)
