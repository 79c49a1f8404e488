import pytest
from segmenting import train
from shards import scenes, segmentation


@pytest.fixture(scope="session")
def sets(tmp_path_factory):
    """16 scenes of 32 px to learn from and 6 to score."""
    root = tmp_path_factory.mktemp("scenes")
    scenes.write(root / "train", count=16, size=32)
    scenes.write(root / "val", count=6, size=32, start=16)
    data = segmentation.load(root / "train")
    return data, segmentation.load(root / "val", classes=data.classes)


@pytest.fixture(scope="session")
def whole(sets, tmp_path_factory):
    """A finished run that nothing interrupted, read only, and its scores."""
    run = tmp_path_factory.mktemp("whole")
    return run, train(sets, run)
