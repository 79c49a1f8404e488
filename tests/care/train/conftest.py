"""A finished run, what happens in the middle of one, and a network of other people."""

from importlib import import_module
import pytest
import torch
from foreign_weights import IMAGES, ONCE
from small_runs import train
from torch import nn
from torchvision import models
import shards
from care import lr_at
from care.train import foreign

module = import_module("care.train.pretrain")


@pytest.fixture(scope="session")
def whole(image_set, tmp_path_factory):
    """A finished run that nothing interrupted; read only."""
    run = tmp_path_factory.mktemp("whole")
    train(shards.open(image_set), run)
    return run


@pytest.fixture
def at_step(monkeypatch):
    """Does something in a run at the start of a step, before its learning rate is set."""

    def register(step, action):
        def lr_and_action(now, **settings):
            if now == step:
                action()
            return lr_at(now, **settings)

        monkeypatch.setattr(module, "lr_at", lr_and_action)

    return register


@pytest.fixture(scope="session")
def network():
    """Torchvision's ResNet-18 as after some training."""
    torch.manual_seed(1)
    network = models.resnet18()
    for _ in range(3):
        network(torch.randn(4, 3, 64, 64) + 1)
    return network.eval()


@pytest.fixture(scope="session")
def features(network):
    with torch.no_grad():
        return nn.Sequential(*[*network.children()][:-1], nn.Flatten())(IMAGES)


@pytest.fixture
def skeletons_once(monkeypatch):
    """Networks that files are compared with are built once."""
    monkeypatch.setattr(foreign, "ENCODERS", ONCE)
