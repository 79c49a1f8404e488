import numpy as np
import pytest
from care.show.intervals import student_97_5
from care.show.seeds import Score, paired_differences, scores, summaries
from care.show.verdict import seeds_verdict


def figures(seeds: int, gain: float = 2.0, spread: float = 0.5, draws: int = 200) -> list[Score]:
    """Two arms, ``gain`` points apart but for noise of seeds and of images."""
    rng = np.random.default_rng(seeds)
    found = []
    for seed in range(seeds):
        base, lead = rng.normal(40, 3), rng.normal(gain, spread)
        images = rng.normal(0, 2, draws)  # what both arms have in common
        own = rng.normal(0, 0.3, draws)
        found.append(Score("c-stream", seed, "kNN", base, tuple(base + images)))
        found.append(Score("care", seed, "kNN", base + lead, tuple(base + lead + images + own)))
    return found


@pytest.mark.parametrize("freedom", [1, 2, 5, 10, 11, 17, 40, 1000])
def test_students_quantile_is_that_of_the_integrated_density(freedom: int) -> None:
    t = student_97_5(freedom)
    x = np.linspace(0, t, 200_001)
    density = (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    # over all numbers the density without its constant integrates to √π·ν·Γ(ν/2)/Γ((ν+1)/2)
    angle = np.linspace(0, np.pi / 2, 200_001)
    whole = np.sqrt(freedom) * np.trapezoid(np.cos(angle) ** (freedom - 1), angle)
    assert np.trapezoid(density, x) / whole == pytest.approx(0.95, abs=2e-5)


def test_mean_and_deviation_over_seeds() -> None:
    given = figures(4)
    for summary in summaries(given):
        values = np.array([score.value for score in given if score.arm == summary.arm])
        assert summary.mean == pytest.approx(values.mean())
        assert summary.std == pytest.approx(values.std(ddof=1))
        assert summary.seeds == 4
    (one, _) = summaries(figures(1))
    assert one.std is None
    assert "±" not in one.text()


def test_the_interval_of_seeds_and_images_is_the_naive_one() -> None:
    given = figures(3)
    (found,) = paired_differences(given, "c-stream")
    ours = [score for score in given if score.arm == "care"]
    other = [score for score in given if score.arm == "c-stream"]
    of_seeds = np.array([a.value - b.value for a, b in zip(ours, other, strict=True)])
    draws = np.array([a.draws for a in ours]) - np.array([b.draws for b in other])
    of_seed_mean = 4.3027 * of_seeds.std(ddof=1) / np.sqrt(3)
    of_images = 1.96 * draws.mean(0).std(ddof=1)
    half = np.hypot(of_seed_mean, of_images)
    assert found.points == pytest.approx(of_seeds.mean())
    assert (found.low, found.high) == pytest.approx((found.points - half, found.points + half))
    assert half < 10, "what both arms' images have in common has cancelled"


def test_the_interval_covers_the_truth_about_95_times_in_a_hundred() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(500):
        given = []
        for seed in range(3):
            given += [Score("a", seed, "kNN", 1 + rng.normal(), ()), Score("b", seed, "kNN", 0, ())]
        (found,) = paired_differences(given, "b")
        covered += found.low < 1 < found.high
    assert 455 <= covered <= 495


def test_one_seed_has_the_interval_of_images_and_says_so() -> None:
    given = figures(1)
    (found,) = paired_differences(given, "c-stream")
    draws = np.array(given[1].draws) - np.array(given[0].draws)
    assert found.high - found.points == pytest.approx(1.96 * draws.std(ddof=1))
    assert "another seed" in seeds_verdict([found])


def test_without_seeds_or_images_nothing_is_claimed() -> None:
    given = [score._replace(draws=()) for score in figures(1)]
    (found,) = paired_differences(given, "c-stream")
    assert found.finding == "uncertainty unknown"
    assert "unknown uncertainty" in seeds_verdict([found])


def test_only_seeds_that_both_arms_have_are_compared() -> None:
    given = figures(3)
    lost = [score for score in given if (score.arm, score.seed) != ("care", 1)]
    (found,) = paired_differences(lost, "c-stream")
    assert found.seeds == 2
    assert paired_differences(given, "random") == []
    assert "nothing can be compared" in seeds_verdict([])


def test_the_verdict_says_ahead_behind_and_neither() -> None:
    ahead, behind, neither = (figures(3, gain, 0.01) for gain in (5.0, -5.0, 0.0))
    renamed = [score._replace(task="linear") for score in ahead]
    renamed += [score._replace(task="kNN") for score in behind]
    renamed += [score._replace(task="10 %") for score in neither]
    first, second, third, caveat = seeds_verdict(
        paired_differences(renamed, "c-stream"),
    ).splitlines()
    assert first.startswith("linear: ahead of c-stream: care +5.0 (+")
    assert second.startswith("kNN: behind c-stream: care −5.0 (−")
    assert third.startswith("10 %: not distinguishable from c-stream: care ")
    assert "at least 3" in caveat


@pytest.mark.parametrize(("measure", "name"), [("inside", "area"), ("pointing", "chance")])
def test_attention_brings_chance_along(measure: str, name: str) -> None:
    row = {"task": "attention", "encoder": "care", measure: 40.0, name: 30.0}
    ours, chance = scores("care", 0, [row | {"resampled": [39.0, 41.0]}])
    assert (ours.value, chance.arm, chance.value, chance.draws) == (40.0, "chance", 30.0, (30, 30))
    (found,) = paired_differences([ours, chance], "care")
    assert found.arm == "chance"
    assert found.points == -10
