"""What tests of loaded encoders share: images, and what an encoder makes of them."""

import functools
import torch
from care import ENCODERS
from care.train import load_encoder

IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
WANTED = "wanted a run of `care pretrain`, a file of weights"
TWINS = {"resnet50x2": "wide_resnet50_2"}
# for the skeletons that files are compared with
ONCE = {name: functools.cache(build) for name, build in ENCODERS.items()}


def assert_same(state, others):
    assert state.keys() == others.keys()
    assert [name for name in state if not torch.equal(state[name], others[name])] == []


def found(path):
    encoder = load_encoder(path)
    with torch.no_grad():
        return encoder, encoder(IMAGES).features


def small_file(state, value):
    """Weights of these shapes, all of them ``value``, that take no room in a file."""
    return {
        name: torch.tensor(value).to(tensor.dtype).expand(tensor.shape)
        for name, tensor in state.items()
    }


def save_old(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)
