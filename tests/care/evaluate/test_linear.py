from importlib import import_module

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from care import CareError
from care.evaluate import Features, linear
from care.evaluate.linear import LEARNING_RATES, _fit

CLASSES = 6


def blobs(seed, n, spread=1.3):
    """Overlapping Gaussian classes; the channels have unequal scales and means, one is constant."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (n,), generator=generator)
    centres = torch.randn(CLASSES, 10, generator=torch.Generator().manual_seed(99))
    x = (centres[y] + spread * torch.randn(n, 10, generator=generator)) * torch.logspace(-2, 2, 10) + torch.linspace(-5, 5, 10)
    return Features(torch.cat((x, torch.full((n, 1), 3.0)), 1), y, CLASSES)


def test_it_is_as_good_as_logistic_regression():
    train, val = blobs(0, 1200), blobs(1, 1000)
    scaler = StandardScaler().fit(train.x)
    reference = LogisticRegression(max_iter=2000).fit(scaler.transform(train.x), train.y)
    want = 100 * reference.score(scaler.transform(val.x), val.y)
    got = linear(train, val)
    assert 40 < want < 95
    assert abs(got.accuracy.top1 - want) <= 2
    assert got.accuracy.top1 < got.accuracy.top5 <= 100
    assert got.lr in LEARNING_RATES


def test_it_is_a_function_of_its_arguments(untouched_generator):
    train, val = blobs(0, 200), blobs(1, 300)
    with untouched_generator():
        first = linear(train, val, epochs=5)
    torch.rand(3)
    assert linear(train, val, epochs=5) == first
    others = [linear(train, val, epochs=5, batch_size=32, seed=seed).accuracy.top1 for seed in range(4)]
    assert len(set(others)) > 1


def test_val_chooses_nothing():
    train, val = blobs(0, 300), blobs(1, 100)
    wrong = val._replace(y=(val.y + 1) % CLASSES)
    assert linear(train, val, epochs=10).lr == linear(train, wrong, epochs=10).lr
    assert linear(train, val, epochs=10).accuracy.top1 > linear(train, wrong, epochs=10).accuracy.top1 + 20


def test_the_learning_rate_that_is_best_on_the_held_out_part_is_used():
    train, val = blobs(0, 300), blobs(1, 300)
    chosen = linear(train, val, lrs=(1e-9, 1.0), epochs=20)
    assert chosen.lr == 1.0
    assert chosen == linear(train, val, lrs=(1.0,), epochs=20)


def test_a_set_too_small_to_hold_a_part_out_is_refused():
    train = blobs(0, 2)
    with pytest.raises(CareError, match="cannot hold 20% of 2 training images out; use a larger set"):
        linear(train, blobs(1, 10))
    with pytest.raises(CareError, match="cannot hold 100% of 2 training images out"):
        linear(train, blobs(1, 10), held_out=1)


@pytest.mark.parametrize("batch_size", [64, 256])
def test_the_closed_form_gradient_is_autograds(batch_size):
    """A step is on the whole set, so that the order does not matter; every learning rate is a classifier of its own."""
    train, lrs, steps = blobs(0, 64), (0.1, 1.0, 8.0), 6
    x = (train.x - train.x.mean(0)) / train.x.std(0).clamp_min(1e-6)
    weights = _fit(x, train.y, CLASSES, lrs, steps, batch_size, 0)
    for got, lr in zip(weights, lrs, strict=True):
        layer = nn.Linear(11, CLASSES)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        optimizer = torch.optim.SGD(layer.parameters(), lr=lr * 64 / 256, momentum=0.9)
        schedule = CosineAnnealingLR(optimizer, T_max=steps)
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(layer(x), train.y).backward()
            optimizer.step()
            schedule.step()
        want = torch.cat((layer.weight.T, layer.bias[None])).detach()
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_every_epoch_visits_each_feature_once_in_another_order(monkeypatch):
    module, rows = import_module("care.evaluate.linear"), []
    logits = module._logits
    monkeypatch.setattr(module, "_logits", lambda x, weights: (rows.append(x[:, 0].tolist()), logits(x, weights))[1])
    _fit(torch.arange(20.0)[:, None], torch.arange(20) % 3, 3, (0.1,), 2, 8, 0)
    assert [len(batch) for batch in rows] == [8] * 4
    epochs = [rows[0] + rows[1], rows[2] + rows[3]]
    assert all(len(set(epoch)) == 16 for epoch in epochs)
    assert epochs[0] != epochs[1]
