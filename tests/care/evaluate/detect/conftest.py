import pytest
from detecting import SETTINGS, judge, make_encoder
from shards import boxes, scenes


@pytest.fixture(scope="session")
def sets(tmp_path_factory):
    """24 scenes of 64 px to learn from and 8 to score."""
    root = tmp_path_factory.mktemp("scenes")
    scenes.write(root / "train", count=24, size=64)
    scenes.write(root / "val", count=8, size=64, start=24)
    return boxes.load(root / "train"), boxes.load(root / "val")


@pytest.fixture(scope="session")
def whole(sets, tmp_path_factory):
    """A finished run of Mask R-CNN C4 that nothing interrupted, read only, and its scores."""
    run = tmp_path_factory.mktemp("whole")
    return run, judge(make_encoder(), *sets, run, **SETTINGS)
