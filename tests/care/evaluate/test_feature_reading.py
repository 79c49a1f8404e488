"""A file of features is read as it was written, and others are refused."""

import numpy as np
import pytest
import torch
from care import resnet18
from care.errors import CareError
from care.evaluate import write_features
from care.evaluate.feature_reading import is_feature_file, read_features
from care.train.weights import save_encoder

SIZE = 32


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    network = resnet18(small=True, half=True)
    network.size = SIZE
    return network


@pytest.mark.parametrize("ending", ["npy", "parquet", "safetensors"])
def test_every_form_comes_back(encoder, data, tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="care-ssl[parquet] is not installed")
    path = tmp_path / f"photos.{ending}"
    features = write_features(encoder, data, path)
    assert is_feature_file(path)
    stored = read_features(path)
    assert stored.keys == data.keys.tolist()
    assert torch.equal(stored.x, features.x)


def test_weights_and_names_are_no_features(encoder, tmp_path):
    save_encoder(tmp_path / "encoder.safetensors", encoder, size=SIZE)
    assert not is_feature_file(tmp_path / "encoder.safetensors")
    assert not is_feature_file("random:resnet18")
    assert not is_feature_file("nowhere.safetensors")


def test_what_is_missing_or_other_is_named(tmp_path):
    with pytest.raises(CareError, match=r"photos\.csv does not exist; wanted a file of"):
        read_features(tmp_path / "photos.npy")
    np.save(tmp_path / "photos.npy", np.zeros((3, 4)))
    (tmp_path / "photos.csv").write_text("name\na\n")
    with pytest.raises(CareError, match="has no features of images"):
        read_features(tmp_path / "photos.npy")
    (tmp_path / "photos.csv").write_text("key,class\na,\n")
    with pytest.raises(CareError, match=r"1 names and features \[3, 4\]"):
        read_features(tmp_path / "photos.npy")
