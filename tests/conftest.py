import os
import tarfile
from pathlib import Path
import pytest


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory):
    """Unpacks a tar of the test data."""

    def unpack(name):
        if "CARE_TEST_DATA" not in os.environ:
            pytest.skip(f"needs {name}: set CARE_TEST_DATA to the folder that has it")
        folder = tmp_path_factory.mktemp(name.partition(".")[0])
        with tarfile.open(Path(os.environ["CARE_TEST_DATA"]) / name) as tar:
            tar.extractall(folder, filter="data")
        return folder

    return unpack


def pytest_collection_modifyitems(items):
    items.sort(
        key=lambda item: "flows" not in item.path.parts
    )  # the longest file first: pytest-xdist gives a file to one process
