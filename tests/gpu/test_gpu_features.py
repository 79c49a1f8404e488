"""Features and nearest neighbours on a GPU are the CPU's."""

import pytest
import torch
from care import build_encoder
from care.evaluate import extract, knn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
DEVICE = "cuda"


@pytest.fixture
def encoders(exact):
    """The same random weights, on the CPU and on the device."""
    pair = []
    for device in ("cpu", DEVICE):
        torch.manual_seed(0)
        pair.append(build_encoder("resnet18").eval().to(device))
    return pair


def test_features_are_those_of_the_cpu(data, encoders):
    on_cpu, on_device = (extract(encoder, data, size=64) for encoder in encoders)
    assert on_device.x.device.type == "cpu"
    assert torch.equal(on_device.y, on_cpu.y)
    torch.testing.assert_close(on_device.x, on_cpu.x, rtol=1e-3, atol=1e-4)


def test_half_precision_features_are_near(data, encoders):
    on_cpu = extract(encoders[0], data, size=64)
    on_device = extract(encoders[1], data, size=64, precision="bf16")
    cosines = torch.nn.functional.cosine_similarity(on_device.x, on_cpu.x)
    assert cosines.min() > 0.999


def test_nearest_neighbours_are_those_of_the_cpu(data, encoders):
    on_cpu, on_device = (knn(encoder, data, data, size=64, k=5) for encoder in encoders)
    assert on_device.protocol == on_cpu.protocol
    for name, measure in on_cpu.measures.items():
        # one image of 48 is 2.1 per cent; votes that tie may fall either way
        assert on_device.measures[name] == pytest.approx(measure, abs=2.1)
