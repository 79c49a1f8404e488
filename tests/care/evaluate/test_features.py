"""Features of a frozen encoder, and the cache of them."""

import hashlib
import shutil
import fsspec
import numpy as np
import pytest
import torch
from photo_sets import build
from safetensors.torch import load_file, save
from torch import nn
from torchvision import transforms
import shards
from care import CareError, resnet18
from care.evaluate import extract, weighted_knn
from care.train.load import load_encoder
from care.train.weights import digest_of

SIZE = 32
NORMALIZE = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def paper_transform(size):
    """torchvision's own, on images: resize the short side, central crop."""
    return transforms.Compose(
        [transforms.Resize(round(size * 256 / 224)), transforms.CenterCrop(size)]
    )


@pytest.fixture
def encoder():
    """In train mode, with statistics that are not the initial ones."""
    torch.manual_seed(0)
    network = resnet18(small=True, half=True)
    network(torch.randn(8, 3, SIZE, SIZE))
    return network


@pytest.fixture
def passes(encoder):
    """Images of every forward pass, from now on."""
    seen = []
    encoder.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    return seen


def test_features_are_those_of_the_encoder_in_eval_mode_in_the_sets_order(encoder, data):
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    features = extract(encoder, data, size=SIZE, batch_size=10)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert encoder.training
    assert not encoder.eval().training
    transform = transforms.Compose([paper_transform(SIZE), transforms.ToTensor(), NORMALIZE])
    with torch.no_grad():
        want = torch.cat([encoder(transform(data.image(i))[None]).features for i in range(24)])
    torch.testing.assert_close(features.x, want, rtol=1e-4, atol=1e-5)
    assert features.y.tolist() == [int(sample.label) for sample in data]
    assert features.classes == 3
    extract(encoder, data, size=SIZE)
    assert not encoder.training


def test_features_can_train_a_classifier_of_the_callers(encoder, data):
    features = extract(encoder, data, size=SIZE)
    layer = nn.Linear(256, features.classes)
    nn.functional.cross_entropy(layer(features.x), features.y).backward()
    assert layer.weight.grad.abs().max() > 0
    assert not features.x.requires_grad


def test_the_mode_comes_back_after_a_failure(encoder, damaged_set):
    with pytest.raises(shards.ShardError, match=r"sample 13 .* is damaged"):
        extract(encoder, shards.open(damaged_set), size=SIZE)
    assert encoder.training


def test_reduced_precision_gives_nearly_the_same_features_in_float32(encoder, data):
    features = {
        name: extract(encoder, data, size=SIZE, precision=name).x
        for name in ("fp32", "bf16", "fp16")
    }
    for name in ("bf16", "fp16"):
        assert features[name].dtype == torch.float32
        assert not torch.equal(features[name], features["fp32"])
        torch.testing.assert_close(features[name], features["fp32"], rtol=0.1, atol=0.1)
    assert not torch.equal(features["bf16"], features["fp16"])


def test_images_without_a_class_have_features_too(encoder, make_image, tmp_path):
    names = ["ant/1.png", "loose.png", "bee/2.png", "bee/sub.v2.png"]
    mixed = build(tmp_path, make_image, names)
    features = extract(encoder, mixed, size=SIZE)
    assert dict(zip(features.keys.tolist(), features.y.tolist(), strict=True)) == {
        "ant/1": 0,
        "loose": -1,
        "bee/2": 1,
        "bee/sub%2Ev2": 1,
    }
    labelled = extract(encoder, mixed.labelled(), size=SIZE)
    torch.testing.assert_close(labelled.x, features.x[features.y >= 0])
    with pytest.raises(CareError, match="wanted labels from 0 to 1, got some from -1 to 1"):
        weighted_knn(features, labelled)


def test_a_set_without_classes_has_features_by_name(encoder, make_image, tmp_path):
    flat = build(tmp_path, make_image, ["1.png", "2.png"])
    features = extract(encoder, flat, size=SIZE)
    assert sorted(features.keys) == ["1", "2"]
    assert (features.x.shape, features.y.tolist(), features.classes) == ((2, 256), [-1, -1], 0)


def files(cache):
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file()
    }


def same(one, other):
    return (
        torch.equal(one.x, other.x) and torch.equal(one.y, other.y) and one.classes == other.classes
    )


def no_image(data, number):
    raise AssertionError(f"image {number} was decoded")


def test_what_is_in_the_cache_takes_no_forward_pass_and_no_image(
    encoder, data, passes, tmp_path, monkeypatch
):
    plain = extract(encoder, data, size=SIZE)
    first = extract(encoder, data, size=SIZE, cache=tmp_path / "cache")
    assert passes == [10, 10, 4] * 2
    assert same(first, plain)
    before = files(tmp_path / "cache")
    assert [name.rpartition("/")[2] for name in before] == [
        "0.safetensors",
        "1.safetensors",
        "2.safetensors",
    ]
    monkeypatch.setattr(shards.ShardSet, "image", no_image)
    again = extract(
        encoder, data, size=SIZE, batch_size=3, workers=1, cache=str(tmp_path / "cache")
    )
    assert len(passes) == 6
    assert same(again, first)
    assert files(tmp_path / "cache") == before


def test_a_cache_may_be_a_url(encoder, data, passes):
    first = extract(encoder, data, size=SIZE, cache="memory://bucket/features")
    assert same(extract(encoder, data, size=SIZE, cache="memory://bucket/features"), first)
    assert passes == [10, 10, 4]
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_the_cache_tells_encoder_data_size_and_precision_apart(
    encoder, data, make_image, passes, tmp_path
):
    names = [f"{name}/{n}.png" for n, name in enumerate(("ant", "bee", "cat") * 8)]
    other = build(tmp_path, lambda n: make_image(n + 1), names, shard_size=10)
    assert other.classes == data.classes
    cache, settings = tmp_path / "cache", {"size": SIZE, "precision": "fp32"}
    known = []
    for changes, of in ({}, data), ({"size": 40}, data), ({"precision": "bf16"}, data), ({}, other):
        known.append(extract(encoder, of, **settings | changes, cache=cache))
        assert same(known[-1], extract(encoder, of, **settings | changes))
    assert passes == [10, 10, 4] * 8
    with torch.no_grad():
        encoder.bn1.running_mean += 0.1  # a buffer alone
    known.append(extract(encoder, data, **settings, cache=cache))
    assert same(known[-1], extract(encoder, data, **settings))
    assert passes == [10, 10, 4] * 10
    assert all(not torch.equal(known[a].x, known[b].x) for a in range(5) for b in range(a))
    assert len(files(cache)) == 5 * 3


@pytest.mark.parametrize(
    "names",
    [
        ("random:lab:resnet18-small-half", "random:ydbdr:resnet18-small-half"),
        ("random:resnet18-small-half", "random:resnet18-cifar-half"),
    ],
)
def test_the_cache_tells_networks_of_equal_weights_apart(names, data, tmp_path):
    encoders = [load_encoder(name) for name in names]
    states = [encoder.state_dict() for encoder in encoders]
    assert all(torch.equal(value, states[0][key]) for key, value in states[1].items())
    for encoder in encoders:
        cached = extract(encoder, data, size=16, cache=tmp_path)
        assert same(cached, extract(encoder, data, size=16))


def test_a_digest_is_of_the_weights_alone_where_they_tell_all():
    encoder = load_encoder("random:resnet18-small-half")
    tensors = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    assert digest_of(encoder) == hashlib.sha256(save(tensors)).hexdigest()
    stems = [load_encoder(f"random:resnet18-cifar{padding}") for padding in ("", "-pad2")]
    assert torch.equal(stems[0].conv1.weight, stems[1].conv1.weight)
    assert digest_of(stems[0]) != digest_of(stems[1])


def test_some_shards_are_extracted_by_themselves_and_a_last_call_finds_them(
    encoder, data, passes, tmp_path
):
    plain = extract(encoder, data, size=SIZE)
    passes.clear()
    part = extract(encoder, data, size=SIZE, only=[1], cache=tmp_path)
    assert passes == [10]
    assert torch.equal(part.x, plain.x[10:20])
    assert torch.equal(part.y, plain.y[10:20])
    assert [name.rpartition("/")[2] for name in files(tmp_path)] == ["1.safetensors"]
    mixed = extract(encoder, data, size=SIZE, batch_size=4, only=iter([2, 1]), cache=tmp_path)
    assert passes == [10, 4]
    assert torch.equal(mixed.y, torch.cat((plain.y[20:], plain.y[10:20])))
    torch.testing.assert_close(mixed.x, torch.cat((plain.x[20:], plain.x[10:20])))
    assert same(extract(encoder, data, size=SIZE, cache=tmp_path), plain)
    assert passes == [10, 4, 10]


def test_a_shard_may_be_empty(encoder, make_image, passes, tmp_path):
    names = ["ant/1.png", "bee/2.png", "ant/3.png"]
    data = build(tmp_path, make_image, names, broken=["bee/2.png"], shard_size=1, max_rejects=1)
    empty = int(np.flatnonzero(np.diff(data.index.starts) == 0)[0])
    for cache in (None, tmp_path / "cache"):
        nothing = extract(encoder, data, size=SIZE, only=[empty], cache=cache)
        assert nothing.x.shape == (0, 256)
        assert nothing.y.shape == (0,)
        assert len(extract(encoder, data, size=SIZE, cache=cache).x) == 2
    assert passes == [1] * 4


@pytest.mark.parametrize("left", [0, 5, 60, -1])
def test_a_file_of_the_cache_that_is_cut_short_is_made_again(encoder, data, passes, tmp_path, left):
    first = extract(encoder, data, size=SIZE, cache=tmp_path)
    before = files(tmp_path)
    (damaged,) = tmp_path.rglob("1.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:left])
    passes.clear()
    assert same(extract(encoder, data, size=SIZE, cache=tmp_path), first)
    assert passes == [10]
    assert files(tmp_path) == before


def test_the_shards_before_a_failure_stay(encoder, damaged_set, passes, tmp_path):
    data = shards.open(damaged_set)
    with pytest.raises(shards.ShardError, match=r"sample 13 .* is damaged"):
        extract(encoder, data, size=SIZE, cache=tmp_path / "cache")
    (kept,) = (tmp_path / "cache").rglob("*.safetensors")
    passes.clear()
    got = extract(encoder, data, size=SIZE, cache=tmp_path / "cache", only=[0])
    assert passes == []
    assert torch.equal(got.x, load_file(kept)["x"])
    shutil.rmtree(tmp_path / "cache")
    assert same(extract(encoder, data, size=SIZE, only=[0]), got)
