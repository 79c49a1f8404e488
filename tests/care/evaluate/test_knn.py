import math
import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
import shards
from care import CareError, resnet18
from care.evaluate import Evaluation, Features, extract, knn, weighted_knn
from care.evaluate.resampling import resampled_mean

CLASSES = 9


def draw(seed, n):
    """Overlapping classes, of unequal length, not centred."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (n,), generator=generator)
    centres = torch.randn(CLASSES, 6, generator=torch.Generator().manual_seed(99))
    x = centres[y] + 0.9 * torch.randn(n, 6, generator=generator) + 0.3
    return Features(x * (0.1 + torch.rand(n, 1, generator=generator)), y, CLASSES)


def naive_scores(train, val, k, temperature):
    scores = np.zeros((len(val.x), train.classes))
    for row, query in enumerate(val.x.tolist()):
        cosines = []
        for key, label in zip(train.x.tolist(), train.y.tolist(), strict=True):
            norm = math.sqrt(sum(a * a for a in query) * sum(b * b for b in key))
            cosines.append((sum(a * b for a, b in zip(query, key, strict=True)) / norm, label))
        for cosine, label in sorted(cosines, reverse=True)[:k]:
            scores[row, label] += math.exp(cosine / temperature)
    return scores


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.5), (20, 0.07)])
def test_neighbours_vote_with_the_exponential_of_their_cosine(k, temperature):
    train, val = draw(0, 120), draw(1, 60)
    got = weighted_knn(train, val, k=k, temperature=temperature)
    scores = naive_scores(train, val, k, temperature)
    assert got.top1 == pytest.approx(
        100 * top_k_accuracy_score(val.y, scores, k=1, labels=range(CLASSES)), abs=1e-3
    )
    assert 20 < got.top1 < 90
    if k == 20:  # with fewer voters than five the order of the classes without votes decides
        assert got.top5 == pytest.approx(
            100 * top_k_accuracy_score(val.y, scores, k=5, labels=range(CLASSES)), abs=1e-3
        )


@pytest.mark.parametrize("k", [1, 20])
def test_it_agrees_with_sklearn(k):
    train, val = draw(0, 300), draw(1, 1500)  # more queries than go in one piece
    reference = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp(-distance / 0.07)
    )
    reference.fit(train.x, train.y)
    assert weighted_knn(train, val, k=k).top1 == pytest.approx(
        100 * reference.score(val.x, val.y), abs=1e-3
    )


def test_the_protocol_is_twenty_neighbours_at_0_07():
    train, val = draw(0, 120), draw(1, 60)
    assert (
        weighted_knn(train, val)
        == weighted_knn(train, val, k=20, temperature=0.07)
        != weighted_knn(train, val, k=3, temperature=0.07)
    )


def test_all_vote_where_there_are_fewer():
    train, val = draw(0, 12), draw(1, 60)
    assert weighted_knn(train, val, k=50) == weighted_knn(train, val, k=12)


def test_far_neighbours_still_count_where_all_are_far():
    train = Features(torch.tensor([[-1.0, 0.01], [-1.0, -0.02]]), torch.tensor([2, 1]), 3)
    assert (
        weighted_knn(
            train, Features(torch.tensor([[1.0, 0.3]]), torch.tensor([1]), 3), temperature=0.02
        ).top1
        == 0
    )
    assert (
        weighted_knn(
            train, Features(torch.tensor([[1.0, 0.3]]), torch.tensor([2]), 3), temperature=0.02
        ).top1
        == 100
    )


def test_a_label_that_is_no_class_is_refused():
    train, val = draw(0, 120), draw(1, 60)
    with pytest.raises(CareError, match="wanted labels from 0 to 8, got some from 1 to 9"):
        weighted_knn(train, val._replace(y=val.y.clamp_min(1) + (val.y == 8)))


# of an encoder


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    network = resnet18(small=True, half=True)
    network(torch.randn(8, 3, 32, 32))
    network.size = 32
    return network


@pytest.fixture(scope="module")
def val_path(tmp_path_factory, make_image):
    """Half of its 18 images are near one of the training set's, with the labels of ``data``."""
    root = tmp_path_factory.mktemp("val")
    for number in range(18):
        folder = root / "photos" / ("ant", "bee", "cat")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        make_image(number if number < 9 else number + 100, (41, 40)).save(folder / f"{number}.png")
    shards.build(root / "photos", root / "set", workers=1)
    return root / "set"


@pytest.mark.parametrize("settings", [{}, {"k": 3, "temperature": 0.2}, {"k": 1, "size": 40}])
def test_the_verb_is_the_vote_of_frozen_features(encoder, data, val_path, settings):
    val = shards.open(val_path)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    got = knn(encoder, data, val, **settings)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert encoder.training
    size, k, temperature = ({"size": 32, "k": 20, "temperature": 0.07} | settings).values()
    scores = naive_scores(
        extract(encoder, data, size=size), extract(encoder, val, size=size), k, temperature
    )
    # there are three classes, of six images each
    assert got.measures.keys() == {"top1"}
    assert got.measures["top1"] == pytest.approx(
        100 * float((scores.argmax(1) == val.labels).mean()), abs=1e-3
    )
    assert 30 < got.measures["top1"] < 100
    want = (
        f"weighted nearest neighbours on frozen features (k {k}, temperature {temperature:g}), "
        f"centre crops of {size} px"
    )
    protocol = f"{want}; nothing is trained or chosen"
    right = scores.argmax(1) == val.labels
    by_class = {
        name: pytest.approx(100 * right[val.labels == label].mean(), abs=1e-3)
        for label, name in enumerate(val.classes)
    }
    assert got == Evaluation(
        "kNN", protocol, got.measures, {}, got.resampled, by_class, outcomes=got.outcomes
    )
    assert got.resampled == resampled_mean(right)
    assert len(set(got.resampled)) > 3


def test_more_neighbours_than_there_are_images_is_all_of_them_and_said(
    encoder, data, val_path, capsys
):
    val = shards.open(val_path)
    got = knn(encoder, data, val, k=100_000)
    assert got.measures == knn(encoder, data, val, k=len(data)).measures
    assert f"(k {len(data)}, all of train, where 100000 were wanted, temp" in got.protocol
    assert (
        f"k 100,000 is more than train has: all its {len(data)} images" in capsys.readouterr().err
    )


def test_the_verb_uses_a_cache(encoder, data, val_path, tmp_path, monkeypatch):
    first = knn(encoder, data, shards.open(val_path), cache=tmp_path)

    def refuse(*_):
        raise AssertionError("an image is read again")

    monkeypatch.setattr(shards.ShardSet, "image", refuse)
    assert knn(encoder, data, shards.open(val_path), cache=tmp_path, k=20) == first
    assert knn(encoder, data, shards.open(val_path), cache=tmp_path, k=1) != first


def test_sets_of_other_classes_and_without_classes_are_refused(encoder, data, make_image, tmp_path):
    for name in ("one/bee/1.png", "one/dog/2.png", "flat/1.png", "flat/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        make_image(0).save(tmp_path / name)
    sets = {}
    for name in ("one", "flat"):
        shards.build(tmp_path / name, tmp_path / "sets" / name, workers=1)
        sets[name] = shards.open(tmp_path / "sets" / name)
    with pytest.raises(CareError, match=r"classes that .* does not have: ant, cat"):
        knn(encoder, sets["one"], data)
    with pytest.raises(CareError, match="flat has no image with a class"):
        knn(encoder, sets["flat"], sets["flat"])
