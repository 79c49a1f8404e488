import pytest
from classifying import COLOURS, SETTINGS, judge, make_encoder
from PIL import Image
import shards


@pytest.fixture(scope="session")
def sets(tmp_path_factory, make_image):
    """Paths of 42 images to train on and 30 to score, whose class is the colour that prevails."""
    root = tmp_path_factory.mktemp("colours")
    for name, count in (("train", 42), ("val", 30)):
        for n in range(count):
            folder = root / f"{name}-photos" / COLOURS[n % 6]
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.blend(
                make_image(n + 100 * count), Image.new("RGB", (40, 40), COLOURS[n % 6]), 0.25
            )
            image.save(folder / f"{name}_{n}.png")
        shards.build(root / f"{name}-photos", root / name, shard_size=16, workers=1)
    return root / "train", root / "val"


@pytest.fixture
def train(sets):
    return shards.open(sets[0])


@pytest.fixture
def val(sets):
    return shards.open(sets[1])


@pytest.fixture
def encoder():
    return make_encoder()


@pytest.fixture(scope="session")
def whole(sets, tmp_path_factory):
    """A finished run that nothing interrupted, read only, and its result."""
    run = tmp_path_factory.mktemp("whole")
    return run, judge(make_encoder(), *map(shards.open, sets), run, **SETTINGS)
