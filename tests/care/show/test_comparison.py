import itertools
import json
import math
import random
import numpy as np
import pytest
from evaluation_rows import drawn_values, row
from care.show import Difference, differences
from care.show.comparison import subject_of


def naive(ours, other, trials=1, ours_std=0.0, other_std=0.0):
    """The standard error by NumPy."""
    count = min(len(ours), len(other))
    paired = np.asarray(ours[:count]) - np.asarray(other[:count])
    return math.sqrt(np.var(paired, ddof=1) + (ours_std**2 + other_std**2) / trials)


def test_a_difference_is_that_of_a_naive_computation():
    generator = random.Random(1)
    ours, other = drawn_values(generator, 200), drawn_values(generator, 200)
    spread = {"trials": 3, "settings": {"size": 48}, "digests": {"encoder": "e", "val": "b"}}
    rows = [
        row("linear", "random", 48.0, **spread, resampled=other, top1_std=0.7),
        row("linear", "CARE", 50.5, **spread, resampled=ours, top1_std=1.1),
    ]
    (difference,) = differences(rows)
    error = naive(ours, other, 3, 1.1, 0.7)
    assert difference[:5] == ("linear", "top1", "CARE", "random", 2.5)
    assert difference[5:] == pytest.approx((error, 2.5 - 1.96 * error, 2.5 + 1.96 * error))


def test_a_single_trial_adds_nothing_to_the_draws():
    rows = [row("kNN", "random", 1.0, [0, 1, 2], top1_std=9.0), row("kNN", "CARE", 1.0, [0, 0, 0])]
    assert differences(rows)[0].standard_error == pytest.approx(1.0)


def test_what_both_encoders_share_in_a_draw_is_no_uncertainty():
    deviations = drawn_values(random.Random(2), 50, 0.0)
    ours = [deviations[0] + 0.5, *deviations[1:]]
    rows = [row("kNN", "random", 40.0, deviations), row("kNN", "CARE", 41.0, ours)]
    assert differences(rows)[0].standard_error == pytest.approx(0.5 / math.sqrt(50))
    assert differences(rows)[0].finding == "ahead"


def test_draws_that_never_differ_tell_nothing_of_other_images():
    rows = [row("kNN", "random", 0.0, [0.0] * 9), row("kNN", "CARE", 100.0, [0.0] * 9)]
    assert differences(rows)[0].finding == "uncertainty unknown"  # such as those of one image
    rows[1] = row("kNN", "CARE", 0.0, [0.0] * 9)
    assert differences(rows)[0][4:] == (0.0, 0.0, 0.0, 0.0)
    assert differences(rows)[0].finding == "not distinguishable"


def test_lists_of_different_lengths_are_paired_as_far_as_both_go():
    generator = random.Random(3)
    ours, other = drawn_values(generator, 120), drawn_values(generator, 200)
    rows = [row("kNN", "random", 50.0, resampled=other), row("kNN", "CARE", 50.0, resampled=ours)]
    assert differences(rows)[0].standard_error == pytest.approx(naive(ours, other))


@pytest.mark.parametrize(
    ("deviations", "finding"),
    [
        ([-1, 1], "ahead"),
        ([-9, 9], "not distinguishable"),
        ([5], "uncertainty unknown"),
        ([], "uncertainty unknown"),
    ],
)
def test_the_interval_decides(deviations, finding):
    rows = [row("kNN", "random", 40.0, [0.0] * 9), row("kNN", "CARE", 45.0, deviations)]
    opposite = {"ahead": "behind"}.get(finding, finding)
    assert [difference.finding for difference in differences(rows)] == [finding]
    assert [difference.finding for difference in differences(rows, ours="random")] == [opposite]


def test_draws_that_are_no_numbers_are_left_out():
    ours = [50.0, math.nan, 52.0, 49.0, None, 51.0]
    rows = [
        row("kNN", "random", 50.0, [0, 0, 0, math.inf, 0, 0]),
        row("kNN", "CARE", 50.0, resampled=ours),
    ]
    assert differences(rows)[0].standard_error == pytest.approx(float(np.std([50, 52, 51], ddof=1)))


@pytest.mark.parametrize("missing", ["ours", "other", "both", "deviation"])
def test_without_draws_or_deviations_the_uncertainty_is_unknown(missing):
    ours, other = row("kNN", "CARE", 45.0, [0, 1]), row("kNN", "random", 40.0, [0, 1])
    for name, result in (("ours", ours), ("other", other)):
        if missing in (name, "both"):
            del result["resampled"]
    if missing == "deviation":  # of several trials
        ours["trials"] = other["trials"] = 3
        ours["top1_std"], other["top1_std"] = 0.5, None
    (difference,) = differences([other, ours])
    assert difference == Difference("kNN", "top1", "CARE", "random", 5.0, None, None, None)
    assert '"standard_error": null' in json.dumps(difference._asdict(), allow_nan=False)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "much"])
def test_a_measure_that_is_no_number_makes_no_difference(value):
    rows = [
        row("kNN", "random", 40.0),
        row("kNN", "CARE", 45.0),
        row("linear", "random", 40.0),
        row("linear", "CARE", 1.0),
    ]
    for changed in (2, 3):
        broken = [*rows]
        broken[changed] = broken[changed] | {"top1": value}
        assert [difference.task for difference in differences(broken)] == ["kNN"]


def test_only_what_was_judged_alike_is_compared():
    short, long = {"settings": {"epochs": 10}}, {"settings": {"epochs": 80}}
    rows = [
        row("linear", "random", 1.0, **short),
        row("linear", "CARE", 3.0, **short),
        row("linear", "random", 10.0, **long),
        row("linear", "CARE", 30.0, **long),
        row("linear", "C-stream alone", 5.0, settings={"epochs": 20}),
        row("linear", "theirs", 70.0, source="reported by the paper"),
    ]
    points = [(each.task, each.other, each.points) for each in differences(rows)]
    assert points == [
        ("linear (1)", "random", 2.0),
        ("linear (2)", "random", 20.0),
    ]


def test_encoders_of_several_files_are_compared_within_each():
    rows = [
        row("kNN", "C-stream alone", 1.0, file="a"),
        row("kNN", "CARE", 2.0, file="a"),
        row("kNN", "C-stream alone", 5.0, file="b"),
        row("kNN", "CARE", 5.0, file="b"),
        row("kNN", "random", 0.5, file="a"),  # gathered once, for both
    ]
    points = [(each.ours, each.other, each.points) for each in differences(rows)]
    assert points == [
        ("CARE (a)", "C-stream alone (a)", 1.0),
        ("CARE (a)", "random", 1.5),
        ("CARE (b)", "C-stream alone (b)", 0.0),
        ("CARE (b)", "random", 4.5),
    ]


def test_attention_is_compared_with_chance_too():
    share = {"measure": "inside", "area": 31.0}
    rows = [
        row("attention", "random", 33.0, [0, 0], **share),
        row("attention", "CARE", 29.0, [-1, 1], **share),
    ]
    other, chance = differences(rows)
    assert (other.measure, other.points) == ("inside", -4.0)
    assert (chance.other, chance.points) == ("chance", -2.0)
    assert chance.standard_error == pytest.approx(math.sqrt(2))
    del rows[1]["resampled"]
    assert differences(rows)[1].standard_error is None
    assert differences([row("attention", "CARE", 29.0, measure="inside", area=math.nan)]) == []


@pytest.mark.parametrize("seed", range(20))
def test_swapping_the_encoders_flips_the_sign(seed):
    generator = random.Random(seed)
    rows = []
    for task, name in itertools.product(("kNN", "linear", "1 %"), ("random", "CARE")):
        value = generator.uniform(0, 90)
        resampled = drawn_values(generator, generator.randint(0, 9))
        deviation = generator.random()
        rows.append(row(task, name, value, resampled=resampled, trials=3, top1_std=deviation))
    for ours, other in zip(differences(rows), differences(rows, ours="random"), strict=True):
        assert (ours.ours, ours.other) == (other.other, other.ours)
        assert ours.points == -other.points
        assert ours.standard_error == pytest.approx(other.standard_error)
        assert (ours.low is None) == (other.high is None)
        assert ours.low is None or (ours.low, ours.high) == pytest.approx((-other.high, -other.low))


def test_each_objective_is_compared_with_itself_alone_and_the_first_with_all():
    figures = {
        "random": 1.0,
        "C-stream alone": 2.0,
        "CARE": 4.0,
        "MoCo v2 alone": 3.0,
        "CARE with MoCo v2": 6.0,
    }
    rows = [row("kNN", name, figure) for name, figure in figures.items()]
    compared = [(each.ours, each.other, each.points) for each in differences(rows)]
    assert compared == [
        ("CARE", "random", 3.0),
        ("CARE", "C-stream alone", 2.0),
        ("CARE", "MoCo v2 alone", 1.0),
        ("CARE", "CARE with MoCo v2", -2.0),
        ("CARE with MoCo v2", "MoCo v2 alone", 3.0),
    ]
    # whichever objective comes first: each is compared with itself alone
    of_moco = [*rows[:1], *rows[3:], *rows[1:3]]
    assert ("CARE", "C-stream alone", 2.0) in [
        (each.ours, each.other, each.points) for each in differences(of_moco)
    ]
    assert differences(of_moco)[0].ours == "CARE with MoCo v2"
    without_byol = [(each.ours, each.other) for each in differences([*rows[:1], *rows[3:]])]
    assert without_byol == [
        ("CARE with MoCo v2", "random"),
        ("CARE with MoCo v2", "MoCo v2 alone"),
    ]


@pytest.mark.parametrize(
    ("names", "subject"),
    [
        (("random", "CARE", "C-stream alone", "CARE with SwAV"), "CARE"),
        (("random", "SwAV alone", "CARE with SwAV", "CARE"), "CARE with SwAV"),
        (("SwAV alone", "CARE with SwAV"), "CARE with SwAV"),
        (("random", "SwAV alone", "SimCLR alone"), "SwAV alone"),
        (("random", "runs/r50"), None),
    ],
)
def test_results_are_about_care_or_else_about_the_first_that_was_trained(names, subject):
    assert subject_of(names) == subject
