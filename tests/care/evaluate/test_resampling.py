import numpy as np
import pytest
import torch
from care.evaluate.resampling import DETECTION_DRAWS, DRAWS, resampled_mean, resamples

GOLDEN = [[0, 0, 3, 0, 2, 1, 0, 2], [0, 2, 3, 0, 0, 2, 0, 1]]


def naive(scores, draws):
    """A bootstrap with the images themselves, drawn by the same numbers."""
    means = []
    for weights in resamples(len(scores), draws):
        images = [score for score, times in zip(scores, weights, strict=True) for _ in range(times)]
        means.append(100 * sum(images) / len(images))
    return means


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_a_draw_has_as_many_images_as_the_set(count):
    draws = [*resamples(count, 20)]
    assert len(draws) == 20
    assert all(len(weights) == count == weights.sum() and (weights >= 0).all() for weights in draws)
    assert count == 1 or len({weights.tobytes() for weights in draws}) > 1


def test_draws_are_a_function_of_size_and_number():
    np.random.seed(3)
    draws = [weights.tolist() for weights in resamples(50)]
    assert len(draws) == DRAWS > DETECTION_DRAWS
    assert [weights.tolist() for weights in resamples(50, 5)] == draws[:5]
    # as today on every machine and in every version of numpy
    assert [weights.tolist() for weights in resamples(8, 2)] == GOLDEN


def test_every_image_is_drawn_alike():
    draws = np.array([*resamples(400, 500)])
    counts = np.bincount(draws.ravel(), minlength=5)[:5] / draws.size
    poisson = np.exp(-1) / np.array([1, 1, 2, 6, 24])
    assert counts == pytest.approx(poisson, abs=0.003)
    assert draws.mean(0) == pytest.approx(np.ones(400), abs=5 / np.sqrt(500))
    assert np.abs(np.corrcoef(draws[:, :20].T) - np.eye(20)).max() < 0.2
    assert np.abs(np.corrcoef(draws[:20]) - np.eye(20)).max() < 0.2


@pytest.mark.parametrize("kind", ["bool", "float", "tensor"])
def test_the_means_are_those_of_a_naive_bootstrap(kind):
    scores = np.random.default_rng(0).random(60)
    scores = scores < 0.4 if kind == "bool" else scores
    got = resampled_mean(torch.from_numpy(scores) if kind == "tensor" else scores, draws=30)
    assert got == pytest.approx(naive(scores.tolist(), 30), abs=5.1e-4)
    assert got == [round(value, 3) for value in got]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("count", [400, 5000])
def test_the_deviation_of_a_share_is_the_binomial_one(share, count):
    right = np.random.default_rng(1).random(count) < share
    got, mean = resampled_mean(right), right.mean()
    want = 100 * np.sqrt(mean * (1 - mean) / count)
    assert np.std(got, ddof=1) == pytest.approx(want, rel=4 / np.sqrt(2 * DRAWS))
    assert np.mean(got) == pytest.approx(100 * mean, abs=4 * want / np.sqrt(DRAWS))


def test_the_difference_of_two_encoders_is_paired_by_the_draw():
    """Where they differ in few images, the difference is known far better than either figure."""
    rng = np.random.default_rng(2)
    first = rng.random(2000) < 0.5
    second = first ^ (rng.random(2000) < 0.02)
    differences = np.subtract(resampled_mean(second), resampled_mean(first))
    discordant = second.astype(float) - first
    assert np.std(differences) == pytest.approx(100 * discordant.std() / np.sqrt(2000), rel=0.2)
    assert np.std(differences) < 0.4 * np.std(resampled_mean(first))
    assert differences == pytest.approx(resampled_mean(discordant), abs=1.1e-3)


def test_all_right_is_all_right_in_every_draw():
    assert resampled_mean(np.ones(9)) == [100.0] * DRAWS
    assert resampled_mean(np.zeros(9, bool)) == [0.0] * DRAWS
