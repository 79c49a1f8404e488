import shutil
from contextlib import contextmanager
import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook
from PIL import Image
import shards

# before the first import of care: the shapes in its annotations are tests
install_import_hook("care", "shape_checks.check")
torch.set_num_threads(1)


def smooth_image(seed, size=(40, 40)):
    """Random colours, a few pixels of them, enlarged."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def make_image():
    return smooth_image


@pytest.fixture(scope="session")
def image_set(tmp_path_factory):
    """A shard set of 24 images of 40 px in three classes, ten in a shard; read only."""
    root = tmp_path_factory.mktemp("images")
    for number in range(24):
        folder = root / "photos" / ("ant", "bee", "cat")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        smooth_image(number).save(folder / f"{number}.png")
    shards.build(root / "photos", root / "set", shard_size=10, workers=1)
    return root / "set"


@pytest.fixture
def data(image_set):
    return shards.open(image_set)


@pytest.fixture
def damaged_set(image_set, tmp_path):
    """A copy of the set with one byte of sample 13 flipped."""
    path = shutil.copytree(image_set, tmp_path / "damaged")
    offset = int(shards.open(path).index.samples[13]["offset"])
    with (path / "shard-000001.tar").open("r+b") as file:
        file.seek(offset + 20)
        byte = file.read(1)[0]
        file.seek(offset + 20)
        file.write(bytes([byte ^ 1]))
    return path


@contextmanager
def global_generator_untouched():
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before), "torch's global generator was moved"


@pytest.fixture(scope="session")
def untouched_generator():
    """A context that fails the test if torch's global generator moves inside."""
    return global_generator_untouched
