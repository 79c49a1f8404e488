import pytest
import torch
from torch import nn
from care import build_encoder
from care.train.weights import save_encoder

SIZE = 32  # px


@pytest.fixture
def make_file(tmp_path):
    """Write an encoder whose norms have statistics of their own, as a run leaves it."""

    def make(name, size=SIZE, prepare=None):
        torch.manual_seed(1)
        encoder = build_encoder(name)
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.1, 0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
        encoder.size = size
        if prepare is not None:
            prepare(encoder)
        path = tmp_path / f"{name.replace(':', '-')}.safetensors"
        save_encoder(path, encoder.eval(), size=size)
        return str(path)

    return make
