import math

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from care.evaluate import Features, knn

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
    got = knn(train, val, k=k, temperature=temperature)
    scores = naive_scores(train, val, k, temperature)
    assert got.top1 == pytest.approx(100 * top_k_accuracy_score(val.y, scores, k=1, labels=range(CLASSES)), abs=1e-4)
    assert 20 < got.top1 < 90
    if k == 20:  # with fewer voters than five the order of the classes without votes decides
        assert got.top5 == pytest.approx(100 * top_k_accuracy_score(val.y, scores, k=5, labels=range(CLASSES)), abs=1e-4)


@pytest.mark.parametrize("k", [1, 20])
def test_it_agrees_with_sklearn(k):
    train, val = draw(0, 300), draw(1, 1500)  # more queries than go in one piece
    reference = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp(-distance / 0.07))
    reference.fit(train.x, train.y)
    assert knn(train, val, k=k).top1 == pytest.approx(100 * reference.score(val.x, val.y), abs=1e-3)


def test_the_protocol_is_twenty_neighbours_at_0_07():
    train, val = draw(0, 120), draw(1, 60)
    assert knn(train, val) == knn(train, val, k=20, temperature=0.07) != knn(train, val, k=3, temperature=0.07)


def test_all_vote_where_there_are_fewer():
    train, val = draw(0, 12), draw(1, 60)
    assert knn(train, val, k=50) == knn(train, val, k=12)


def test_far_neighbours_still_count_where_all_are_far():
    train = Features(torch.tensor([[-1.0, 0.01], [-1.0, -0.02]]), torch.tensor([2, 1]), 3)
    assert knn(train, Features(torch.tensor([[1.0, 0.3]]), torch.tensor([1]), 3), temperature=0.02).top1 == 0
    assert knn(train, Features(torch.tensor([[1.0, 0.3]]), torch.tensor([2]), 3), temperature=0.02).top1 == 100
