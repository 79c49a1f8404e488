import math
import numpy as np
import pytest
import torch
from care import CareError
from care.evaluate import alignment, lidar, neighbour_agreement, rankme, uniformity


def draw(seed, *shape):
    """Features that are neither centred nor of one length, and alike in no direction."""
    generator = np.random.default_rng(seed)
    scales = generator.uniform(0.1, 3, shape[-1])
    return torch.from_numpy((generator.normal(0.3, 1, shape) * scales).astype(np.float32))


def entropy_rank(values):
    total = sum(values)
    shares = [value / total + 1e-7 for value in values]
    return math.exp(-sum(share * math.log(share) for share in shares))


def unit(rows):
    return [[value / math.sqrt(sum(x * x for x in row)) for value in row] for row in rows.tolist()]


def squared_distance(first, second):
    return sum((a - b) ** 2 for a, b in zip(first, second, strict=True))


def test_rankme_is_the_exponential_of_the_singular_values_entropy():
    x = draw(0, 30, 7)
    eigenvalues = np.linalg.eigvalsh(x.numpy().astype(float).T @ x.numpy().astype(float))
    assert rankme(x) == pytest.approx(entropy_rank(np.sqrt(eigenvalues).tolist()), rel=1e-6)


def test_rankme_counts_the_directions_that_are_used():
    assert rankme(torch.eye(12)) == pytest.approx(12, rel=1e-4)
    assert rankme(torch.eye(12)[:5]) == pytest.approx(5, rel=1e-4)
    assert rankme(torch.ones(40, 12)) == pytest.approx(1, abs=1e-4)
    assert rankme(torch.zeros(4, 3)) == pytest.approx(1, abs=1e-4)  # and no NaN


def naive_lidar(views, ridge=1e-4):
    """By loops over images and views, and the square root of a matrix."""
    x = views.numpy().astype(float)
    images, count, width = x.shape
    means = [sum(x[i, j] for j in range(count)) / count for i in range(images)]
    mean = sum(means) / images
    between, within = np.zeros((width, width)), ridge * np.eye(width)
    for i in range(images):
        between += np.outer(means[i] - mean, means[i] - mean) / (images - 1)
        for j in range(count):
            within += np.outer(x[i, j] - means[i], x[i, j] - means[i]) / (images * (count - 1))
    values, vectors = np.linalg.eigh(within)
    whitening = vectors @ np.diag(values**-0.5) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(whitening @ between @ whitening)
    return entropy_rank(np.clip(eigenvalues, 0, None).tolist())


@pytest.mark.parametrize("shape", [(20, 3, 6), (4, 2, 9)])  # more images than features, and fewer
def test_lidar_is_the_effective_rank_of_what_tells_images_apart(shape):
    views = draw(1, *shape)
    assert lidar(views) == pytest.approx(naive_lidar(views), rel=1e-6)


def test_lidar_does_not_count_directions_in_which_only_views_differ():
    """RankMe would count all of them."""
    images = torch.zeros(200, 1, 8)
    images[..., :3] = draw(2, 200, 1, 3)
    jitter = torch.zeros(200, 4, 8)
    jitter[..., 3:] = draw(3, 200, 4, 5)
    views = images + jitter
    assert lidar(views) < 3.1
    assert rankme(views[:, 0]) > 5


def test_alignment_is_the_mean_squared_distance_of_the_views_of_an_image():
    first, second = draw(4, 9, 5), draw(5, 9, 5)
    pairs = zip(unit(first), unit(second), strict=True)
    assert alignment(first, second) == pytest.approx(
        sum(squared_distance(a, b) for a, b in pairs) / 9, rel=1e-6
    )
    assert alignment(first, 3 * first) == pytest.approx(0, abs=1e-9)  # of any length
    assert alignment(first, -first) == pytest.approx(4)


@pytest.mark.parametrize("at_once", [4, 1024])  # of several pieces, and of one
def test_uniformity_is_the_log_of_the_mean_gaussian_over_all_pairs(at_once, monkeypatch):
    monkeypatch.setattr("care.evaluate.label_free.ROWS_AT_ONCE", at_once)
    x = draw(6, 11, 4)
    rows = unit(x)
    gaussians = []
    for i in range(11):
        for j in range(i):
            gaussians.append(math.exp(-2 * squared_distance(rows[i], rows[j])))
    want = math.log(sum(gaussians) / len(gaussians))
    assert uniformity(x) == pytest.approx(want, rel=1e-6)
    assert uniformity(torch.ones(11, 4)) == pytest.approx(0, abs=1e-9)
    assert uniformity(torch.eye(11)) == pytest.approx(-4)


def naive_neighbours(x, row, k):
    rows = unit(x)
    others = [other for other in range(len(rows)) if other != row]
    return set(sorted(others, key=lambda other: squared_distance(rows[row], rows[other]))[:k])


@pytest.mark.parametrize("k", [1, 4, 14])
def test_agreement_is_the_share_of_neighbours_that_two_views_have_in_common(k):
    first = draw(7, 15, 6)
    second = first + 0.5 * draw(8, 15, 6)
    want = [
        len(naive_neighbours(first, row, k) & naive_neighbours(second, row, k)) / k
        for row in range(15)
    ]
    assert neighbour_agreement(first, second, k).tolist() == pytest.approx(want)
    assert k == 14 or 0 < sum(want) < 15


def test_an_image_is_not_its_own_neighbour_among_equal_ones():
    """Of equal cosines the first rows are the nearest, which the last images are not among."""
    equal = torch.ones(9, 3)
    other = draw(9, 9, 3)
    agreement = neighbour_agreement(equal, equal, 2)
    assert agreement.tolist() == [1] * 9
    of_others = neighbour_agreement(equal, other, 2)
    want = [
        len({*[n for n in range(9) if n != row][:2]} & naive_neighbours(other, row, 2)) / 2
        for row in range(9)
    ]
    assert of_others.tolist() == pytest.approx(want)


def test_chance_is_the_share_of_the_others_that_are_asked_for():
    agreement = neighbour_agreement(draw(10, 400, 8), draw(11, 400, 8), 40)
    assert float(agreement.mean()) == pytest.approx(40 / 399, abs=0.02)


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (lambda: uniformity(torch.ones(1, 3)), "at least 2 images"),
        (lambda: lidar(torch.ones(5, 1, 3)), "at least 2 views of each of at least 2 images"),
        (lambda: lidar(torch.ones(1, 5, 3)), "got 5 of 1"),
        (lambda: neighbour_agreement(torch.ones(3, 2), torch.ones(3, 2), 3), "got 3 images"),
    ],
)
def test_too_few_images_are_told(call, wanted):
    with pytest.raises(CareError, match=wanted):
        call()
