"""A finished run, what happens in the middle of one, and a network of other people."""

from importlib import import_module
import pytest
import torch
from foreign_weights import IMAGES, ONCE
from small_runs import train
from torch import nn
from torchvision import models
import shards
from care.train import foreign
from care.train.optimizers import set_rates

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
        def rates_and_action(torch_optimizer, optimizer, now, **settings):
            if now == step:
                action()
            set_rates(torch_optimizer, optimizer, now, **settings)

        monkeypatch.setattr(module, "set_rates", rates_and_action)

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
