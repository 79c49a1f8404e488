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


# in the order of their seconds: begun last, one of them would keep one process busy alone
LONGEST_FILES = (
    "test_pipeline",
    "test_interruptions",
    "test_identity",
    "test_detect",
    "test_remote",
    "test_many_views",
    "test_launch",
    "test_load",
    "test_linear",
    "test_examples",
    "test_finetune",
    "test_finetune_runs",
    "test_refusals",
    "test_run_precision",
    "test_pretrain",
    "test_finetune_choice",
    "test_optimizers",
    "test_cli",
    "test_cli_mistakes",
    "test_locks",
)


def pytest_collection_modifyitems(items):
    """pytest-xdist gives whole files to a process, in the order of the items."""
    places = {stem: number for number, stem in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
