"""A linear classifier on features that were extracted once."""

from importlib import import_module
import pytest
import torch
from classifying import CLASSES, SIZE, judge, tensors
from memory import peak
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from care import CareError
from care.evaluate import Features, extract, linear_on_features
from care.evaluate.linear_features import FAST_LRS
from care.evaluate.linear_heads import LinearHeads, held_out_rows
from shards.order import permutation

module = import_module("care.evaluate.linear_features")


def blobs(seed, n, spread=1.3):
    """Overlapping Gaussian classes; the channels have unequal scales and means, one is constant."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (n,), generator=generator)
    centres = torch.randn(CLASSES, 10, generator=torch.Generator().manual_seed(99))
    x = (centres[y] + spread * torch.randn(n, 10, generator=generator)) * torch.logspace(
        -2, 2, 10
    ) + torch.linspace(-5, 5, 10)
    return Features(torch.cat((x, torch.full((n, 1), 3.0)), 1), y, CLASSES)


@pytest.mark.parametrize("norm", [False, True])
def test_it_is_as_good_as_logistic_regression(norm):
    train, val = blobs(0, 1200), blobs(1, 1000)
    scaler = StandardScaler().fit(train.x)
    reference = LogisticRegression(max_iter=2000).fit(scaler.transform(train.x), train.y)
    want = 100 * reference.score(scaler.transform(val.x), val.y)
    got, lr = linear_on_features(train, val, norm=norm)
    assert 40 < want < 95
    assert abs(got.top1 - want) <= 2
    assert got.top1 < got.top5 <= 100
    assert lr in FAST_LRS


def test_it_is_a_function_of_its_arguments(untouched_generator):
    train, val = blobs(0, 200), blobs(1, 300)
    with untouched_generator():
        first = linear_on_features(train, val, epochs=5)
    torch.rand(3)
    assert linear_on_features(train, val, epochs=5) == first
    others = [
        linear_on_features(train, val, epochs=5, batch_size=32, seed=seed)[0].top1
        for seed in range(4)
    ]
    assert len(set(others)) > 1


def test_features_of_val_choose_nothing():
    train, val = blobs(0, 300), blobs(1, 100)
    wrong = val._replace(y=(val.y + 1) % CLASSES)
    (right_top, right_lr), (wrong_top, wrong_lr) = (
        linear_on_features(train, of, epochs=10) for of in (val, wrong)
    )
    assert right_lr == wrong_lr
    assert right_top.top1 > wrong_top.top1 + 20


def test_the_learning_rate_that_is_best_on_the_held_out_part_is_used():
    train, val = blobs(0, 300), blobs(1, 300)
    chosen = linear_on_features(train, val, lrs=(1e-9, 1.0), epochs=20)
    assert chosen[1] == 1.0
    assert chosen == linear_on_features(train, val, lrs=(1.0,), epochs=20)


def test_features_are_standardised_without_a_copy_of_the_set():
    train = Features(torch.rand(100_000, 64), torch.arange(100_000) % 3, 3)
    val = Features(torch.rand(50_000, 64), torch.arange(50_000) % 3, 3)
    settings = {"lrs": (0.1,), "epochs": 1, "batch_size": 4096, "held_out": 0.01}
    most = peak(lambda: linear_on_features(train, val, **settings))
    assert most < 0.6 * 4 * train.x.numel()


def test_features_too_few_to_hold_a_part_out_are_refused():
    train = blobs(0, 2)
    with pytest.raises(
        CareError, match="cannot hold 20% of 2 training images out; use a larger set"
    ):
        linear_on_features(train, blobs(1, 10))
    with pytest.raises(CareError, match="cannot hold 100% of 2 training images out"):
        linear_on_features(train, blobs(1, 10), held_out=1)


@pytest.mark.parametrize("which", [0, 1])
def test_a_label_that_is_no_class_is_refused(which):
    sets = [blobs(0, 100), blobs(1, 100)]
    sets[which].y[3] = CLASSES
    with pytest.raises(CareError, match="wanted labels from 0 to 5, got some from 0 to 6"):
        linear_on_features(*sets, epochs=1)


def test_at_most_ten_thousand_images_choose_the_learning_rate():
    assert len(held_out_rows(1_281_167, 0.2, 0)) == 10_000
    assert sorted(held_out_rows(10, 0.3, 0)) == sorted(
        permutation(10, seed=0, stream=0)[:3].tolist()
    )
    assert held_out_rows(1000, 0.1, 0).tolist() != held_out_rows(1000, 0.1, 1).tolist()


@pytest.fixture
def trained(monkeypatch):
    """All classifiers, and what each step gave them.

    That is features, labels, and which of the images do not choose the rate.
    """
    made, steps = [], []

    class Kept(LinearHeads):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

        def loss(self, *step):
            steps.append(step)
            return super().loss(*step)

    monkeypatch.setattr(module, "LinearHeads", Kept)
    return made, steps


def test_every_epoch_visits_each_feature_once_in_another_order_and_the_held_out_ones_are_the_same(
    trained,
):
    train = Features(torch.arange(20.0)[:, None], torch.arange(20) % 3, 3)
    linear_on_features(train, train, lrs=(0.1,), epochs=2, batch_size=8)
    x = (train.x - train.x.mean()) / train.x.std(correction=0)
    rows = [[int(torch.nonzero(x == value)[0, 0]) for value in step] for step, _, _ in trained[1]]
    assert [len(batch) for batch in rows] == [8] * 4
    epochs = [rows[0] + rows[1], rows[2] + rows[3]]
    assert all(len(set(epoch)) == 16 for epoch in epochs)
    assert epochs[0] != epochs[1]
    out = {
        row
        for batch, (_, _, kept) in zip(rows, trained[1], strict=True)
        for row, one in zip(batch, kept, strict=True)
        if not one
    }
    assert 0 < len(out) <= 4
    assert out <= set(held_out_rows(20, 0.2, 0).tolist())


@pytest.mark.parametrize("norm", [False, True])
def test_the_layer_is_trained_as_torchs_own_modules(trained, norm):
    """A step is on all images, so that the order does not matter; each rate has a classifier."""
    train, lrs = blobs(0, 64), (0.1, 1.0, 8.0)
    linear_on_features(train, train, lrs=lrs, epochs=6, norm=norm, seed=3)
    (heads,), steps = trained
    wide = train.x.double()
    x = (train.x - wide.mean(0).float()) / wide.std(0, correction=0).float().clamp_min(1e-6)
    kept = torch.ones(64, dtype=torch.bool)
    kept[held_out_rows(64, 0.2, 3)] = False
    assert sorted(steps[0][0][:, 0].tolist()) == sorted(x[:, 0].tolist())
    for row, lr in enumerate(lrs):
        for part in range(2):  # without the held-out ones, and all
            model = nn.Sequential(
                nn.Linear(11, CLASSES), nn.BatchNorm1d(CLASSES) if norm else nn.Identity()
            )
            model[0].weight.data = 0.01 * torch.randn(
                CLASSES, 11, generator=torch.Generator().manual_seed(3)
            )
            nn.init.zeros_(model[0].bias)
            optimizer = torch.optim.SGD(model.parameters(), lr=lr * 64 / 256, momentum=0.9)
            schedule = CosineAnnealingLR(optimizer, T_max=6)
            for _ in range(6):
                optimizer.zero_grad()
                counted = kept if part == 0 else slice(None)
                nn.functional.cross_entropy(model(x)[counted], train.y[counted]).backward()
                optimizer.step()
                schedule.step()
            got = heads.eval()(x)[:, part, row]
            torch.testing.assert_close(got, model.eval()(x), rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(
                heads.linear.weight.view(2, 3, CLASSES, 11)[part, row],
                model[0].weight,
                rtol=1e-3,
                atol=1e-5,
            )


def test_fast_is_another_protocol_and_says_so(encoder, train, val, reads, tmp_path):
    features = [extract(encoder, data, size=SIZE) for data in (train, val)]
    before = tensors(encoder)
    for settings in (
        {"epochs": 20, "lrs": (0.1, 1.0)},
        {"norm": True, "seed": 2, "held_out": 0.4, "batch_size": 16},
    ):
        got = judge(
            encoder,
            train,
            val,
            tmp_path / "run",
            size=SIZE,
            fast=True,
            cache=tmp_path / "cache",
            **settings,
        )
        want, lr = linear_on_features(*features, **settings)
        assert got.measures == want._asdict()
        assert sum(got.resampled) / len(got.resampled) == pytest.approx(want.top1, abs=5)
        assert got.chosen == {"lrs": (lr,)}
        assert got.task == "linear on cached features"
        assert got.protocol.startswith(
            "one linear layer on standardised frozen features of centre crops of 32 px, "
        )
        assert got.protocol.endswith("; not the paper's protocol")
    assert len(reads) == 2 * (42 + 30)  # each set twice: here, and once into the cache
    assert not (tmp_path / "run").exists()
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
