"""What the tests on a GPU share: a shard set, and arithmetic that can be repeated."""

import numpy as np
import pytest
import torch
from PIL import Image
import shards


def smooth_image(seed):
    """Random colours, a few pixels of them, enlarged to 96 × 80 px."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((96, 80), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A shard set of 48 images in three classes; read only."""
    root = tmp_path_factory.mktemp("images")
    for number in range(48):
        folder = root / "photos" / ("ant", "bee", "cat")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        smooth_image(number).save(folder / f"{number}.png")
    shards.build(root / "photos", root / "set", workers=1)
    return shards.open(root / "set")


@pytest.fixture
def exact(monkeypatch):
    """Float32 is float32, not TF32, and kernels that can give other bits each time are avoided.

    Only a warning where torch has no other kernel: what is left of the order of additions is far
    below the tolerances of the tests.
    """
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
