import numpy as np
import pytest
from care.show.intervals import student_97_5
from care.show.seeds import Score, paired_differences, scores, summaries
from care.show.verdict import seeds_verdict


def figures(seeds: int, gain: float = 2.0, spread: float = 0.5, draws: int = 200) -> list[Score]:
    """Two arms, ``gain`` points apart but for noise of seeds and of images."""
    rng = np.random.default_rng(seeds)
    scored = []
    for seed in range(seeds):
        base, lead = rng.normal(40, 3), rng.normal(gain, spread)
        images = rng.normal(0, 2, draws)  # what both arms have in common
        of_care = rng.normal(0, 0.3, draws)
        scored.append(Score("c-stream", seed, "kNN", base, tuple(base + images)))
        ours = base + lead
        scored.append(Score("care", seed, "kNN", ours, tuple(ours + images + of_care)))
    return scored


@pytest.mark.parametrize("freedom", [1, 2, 5, 10, 11, 17, 40, 1000])
def test_students_quantile_is_that_of_the_integrated_density(freedom: int) -> None:
    t = student_97_5(freedom)
    x = np.linspace(0, t, 200_001)
    density = (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    # over all numbers the density without its constant integrates to √π·ν·Γ(ν/2)/Γ((ν+1)/2)
    angle = np.linspace(0, np.pi / 2, 200_001)
    everything = np.sqrt(freedom) * np.trapezoid(np.cos(angle) ** (freedom - 1), angle)
    assert np.trapezoid(density, x) / everything == pytest.approx(0.95, abs=2e-5)


def test_mean_and_deviation_over_seeds() -> None:
    scored = figures(4)
    for summary in summaries(scored):
        values = np.array([score.value for score in scored if score.arm == summary.arm])
        assert summary.mean == pytest.approx(values.mean())
        assert summary.std == pytest.approx(values.std(ddof=1))
        assert summary.seeds == 4
    (of_care, _) = summaries(figures(1))
    assert of_care.std is None
    assert "±" not in of_care.text()


def test_the_interval_of_seeds_and_images_is_the_naive_one() -> None:
    scored = figures(3)
    (difference,) = paired_differences(scored, "c-stream")
    ours = [score for score in scored if score.arm == "care"]
    other = [score for score in scored if score.arm == "c-stream"]
    of_seeds = np.array([a.value - b.value for a, b in zip(ours, other, strict=True)])
    draws = np.array([a.draws for a in ours]) - np.array([b.draws for b in other])
    of_seed_mean = 4.3027 * of_seeds.std(ddof=1) / np.sqrt(3)
    of_images = 1.96 * draws.mean(0).std(ddof=1)
    half = np.hypot(of_seed_mean, of_images)
    assert difference.points == pytest.approx(of_seeds.mean())
    ends = (difference.points - half, difference.points + half)
    assert (difference.low, difference.high) == pytest.approx(ends)
    assert half < 10, "what both arms' images have in common has cancelled"


def test_the_interval_covers_the_truth_about_95_times_in_a_hundred() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(500):
        scored = []
        for seed in range(3):
            scored.append(Score("a", seed, "kNN", 1 + rng.normal(), ()))
            scored.append(Score("b", seed, "kNN", 0, ()))
        (difference,) = paired_differences(scored, "b")
        covered += difference.low < 1 < difference.high
    assert 455 <= covered <= 495


def test_one_seed_has_the_interval_of_images_and_says_so() -> None:
    scored = figures(1)
    (difference,) = paired_differences(scored, "c-stream")
    draws = np.array(scored[1].draws) - np.array(scored[0].draws)
    assert difference.high - difference.points == pytest.approx(1.96 * draws.std(ddof=1))
    assert "another seed" in seeds_verdict([difference])


def test_without_seeds_or_images_nothing_is_claimed() -> None:
    scored = [score._replace(draws=()) for score in figures(1)]
    (difference,) = paired_differences(scored, "c-stream")
    assert difference.finding == "uncertainty unknown"
    assert "unknown uncertainty" in seeds_verdict([difference])


def test_only_seeds_that_both_arms_have_are_compared() -> None:
    scored = figures(3)
    lost = [score for score in scored if (score.arm, score.seed) != ("care", 1)]
    (difference,) = paired_differences(lost, "c-stream")
    assert difference.seeds == 2
    assert paired_differences(scored, "random") == []
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
    (difference,) = paired_differences([ours, chance], "care")
    assert difference.arm == "chance"
    assert difference.points == -10
