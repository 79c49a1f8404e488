"""Features as files of other programs."""

import csv
import json
import numpy as np
import pytest
import torch
from photo_sets import build
from safetensors import safe_open
import shards
from care import resnet18
from care.evaluate import extract, write_features
from shards import storage
from shards.errors import Misuse

SIZE = 32


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    network = resnet18(small=True, half=True)
    network.size = SIZE
    return network


@pytest.fixture(scope="module")
def photos(make_image, tmp_path_factory):
    names = ["ant/1.png", "bee/2.png", "loose.png"]
    return build(tmp_path_factory.mktemp("photos"), make_image, names)


@pytest.fixture(scope="module")
def wanted(encoder, photos):
    """The features, and the classes by name."""
    classes = {"ant/1": "ant", "bee/2": "bee", "loose": ""}
    return extract(encoder, photos, size=SIZE).x.numpy(), [classes[key] for key in photos.keys]


def test_an_array_has_its_names_beside_it(encoder, photos, wanted, tmp_path):
    features = write_features(encoder, photos, tmp_path / "out.v1.npy")
    array = np.load(tmp_path / "out.v1.npy")
    assert array.dtype == np.float32
    assert (array == wanted[0]).all()
    assert torch.equal(features.x, torch.from_numpy(array))
    with (tmp_path / "out.v1.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == photos.keys.tolist()
    assert [row["class"] for row in rows] == wanted[1]


def test_safetensors_have_names_in_their_metadata(encoder, photos, wanted, tmp_path):
    write_features(encoder, photos, tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", "numpy") as file:
        names = json.loads(file.metadata()["care"])
        assert (file.get_tensor("features") == wanted[0]).all()
        assert file.get_tensor("labels").tolist() == photos.labels.tolist()
    assert names == {"keys": photos.keys.tolist(), "classes": ["ant", "bee"]}


def test_a_table_has_a_list_in_each_row(encoder, photos, wanted, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow reads and writes Parquet")
    write_features(encoder, photos, tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet").to_pydict()
    assert list(table) == ["key", "class", "features"]
    assert table["key"] == photos.keys.tolist()
    assert table["class"] == [name or None for name in wanted[1]]
    assert (np.array(table["features"], np.float32) == wanted[0]).all()


def test_a_set_without_classes_has_none_in_its_table(encoder, tmp_path, make_image):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow reads and writes Parquet")
    (tmp_path / "flat").mkdir()
    for number in range(2):
        make_image(number).save(tmp_path / "flat" / f"{number}.png")
    shards.build(tmp_path / "flat", tmp_path / "set")
    write_features(encoder, shards.open(tmp_path / "set"), tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet").to_pydict()
    assert sorted(table) == ["features", "key"]
    assert sorted(table["key"]) == ["0", "1"]


def test_a_file_may_be_a_url(encoder, photos, wanted, url):
    write_features(encoder, photos, f"{url}/out.npy")
    assert storage.read_bytes(f"{url}/out.csv").startswith(b"key,class\n")
    assert storage.read_bytes(f"{url}/out.npy").endswith(wanted[0].tobytes())


def test_another_suffix_is_refused_before_anything_is_computed(encoder, photos, tmp_path, reads):
    with pytest.raises(Misuse, match=r"wanted a file \.npy, \.parquet, \.safetensors .*, got .*tx"):
        write_features(encoder, photos, tmp_path / "out.txt")
    assert not reads
    assert not [*tmp_path.iterdir()]
