import itertools
import json
import math
import random
import re
from html.parser import HTMLParser
import numpy as np
import pytest
from care.show import Difference, differences, report, verdict
from care.show.verdict import findings
from care.show.whiskers import picture
from flows.cli.tables import show_results

LENGTHEN = "For a firmer answer train longer: care demo --steps N."
COVERED = (
    "± is the half-width of a 95 % interval in percentage points; it covers the choice of"
    " validation images (resampled) and, where a task has several trials, the seeds of the"
    " evaluation, but only one pre-training of each encoder: another seed of pre-training"
    " may move the differences further."
)
LACKING = "Without ± the uncertainty is unknown: results lack resampled images."
UNKNOWN = f"{LACKING} Evaluate again to learn it."


def row(task, encoder, value, deviations=None, measure="top1", **more):
    """Deviations are those of the draws from the value."""
    result = {"task": task, "encoder": encoder, measure: value, "protocol": "k 20"}
    if deviations is not None:
        result["resampled"] = [value + deviation for deviation in deviations]
    return result | more


def pair(task, points, half_width, other="random initialisation"):
    """Two rows whose difference has the half-width of its interval to the last digit shown."""
    # two draws, ± spread, have the standard deviation √2 · spread
    spread = half_width / 1.96 / math.sqrt(2)
    return [row(task, other, 40.0, [0.0, 0.0]), row(task, "CARE", 40.0 + points, [-spread, spread])]


def naive(ours, other, trials=1, ours_std=0.0, other_std=0.0):
    """The standard error by NumPy."""
    count = min(len(ours), len(other))
    paired = np.asarray(ours[:count]) - np.asarray(other[:count])
    return math.sqrt(np.var(paired, ddof=1) + (ours_std**2 + other_std**2) / trials)


def drawn(generator, count, base=50.0):
    return [base + generator.gauss(0, 2) for _ in range(count)]


def test_a_difference_is_that_of_a_naive_computation():
    generator = random.Random(1)
    ours, other = drawn(generator, 200), drawn(generator, 200)
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
    deviations = drawn(random.Random(2), 50, 0.0)
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
    ours, other = drawn(generator, 120), drawn(generator, 200)
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
        resampled = drawn(generator, generator.randint(0, 9))
        deviation = generator.random()
        rows.append(row(task, name, value, resampled=resampled, trials=3, top1_std=deviation))
    for ours, other in zip(differences(rows), differences(rows, ours="random"), strict=True):
        assert (ours.ours, ours.other) == (other.other, other.ours)
        assert ours.points == -other.points
        assert ours.standard_error == pytest.approx(other.standard_error)
        assert (ours.low is None) == (other.high is None)
        assert ours.low is None or (ours.low, ours.high) == pytest.approx((-other.high, -other.low))


def test_the_demo_is_told_in_two_sentences():
    tasks = {
        "kNN": (9.3, 2.1),
        "linear": (9.0, 2.4),
        "1 % of the labels": (3.0, 2.0),
        "10 % of the labels": (4.0, 3.0),
    }
    rows = [result for task, figures in tasks.items() for result in pair(task, *figures)]
    rows += [result | {"ap": result.pop("top1")} for result in pair("detection", -0.9, 1.5)]
    rows.insert(1, row("kNN", "C-stream alone", 50.6, [0, 0]))
    assert findings(differences(rows)) == [
        "CARE is ahead of random initialisation in 4 of 5 tasks "
        "(kNN +9.3 ± 2.1, linear +9.0 ± 2.4, 1 % of the labels +3.0 ± 2.0, "
        "10 % of the labels +4.0 ± 3.0), behind in none, "
        "not distinguishable in 1 (detection −0.9 ± 1.5).",
        "CARE and the C-stream alone are not distinguishable at this length (kNN −1.3 ± 2.1).",
    ]
    assert verdict(rows) == " ".join([*findings(differences(rows)), COVERED, LENGTHEN])


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ([(9.3, 2.1)], "CARE is ahead of X in kNN (+9.3 ± 2.1)."),
        ([(-9.3, 2.1)], "CARE is behind X in kNN (−9.3 ± 2.1)."),
        ([(0.0, 2.1)], "CARE and X are not distinguishable at this length (kNN 0.0 ± 2.1)."),
        ([(-0.04, 2.1)], "CARE and X are not distinguishable at this length (kNN 0.0 ± 2.1)."),
        ([(9.0, None)], "CARE minus X: kNN +9.0, of unknown uncertainty."),
        (
            [(9.0, 1.0), (8.0, 1.0)],
            "CARE is ahead of X in both tasks (kNN +9.0 ± 1.0, linear +8.0 ± 1.0).",
        ),
        (
            [(-9.0, 1.0), (-8.0, 1.0), (-7.0, 1.0)],
            "CARE is behind X in all 3 tasks (kNN −9.0 ± 1.0, linear −8.0 ± 1.0, COCO −7.0 ± 1.0).",
        ),
        (
            [(-9.0, 1.0), (0.5, 1.0), (7.0, None)],
            "CARE is behind X in 1 of 3 tasks (kNN −9.0 ± 1.0), ahead in none, "
            "not distinguishable in 1 (linear +0.5 ± 1.0), uncertainty unknown in 1 (COCO +7.0).",
        ),
        (
            [(9.0, 1.0), (-8.0, 1.0)],
            "CARE is ahead of X in 1 of 2 tasks (kNN +9.0 ± 1.0), behind in 1 (linear −8.0 ± 1.0).",
        ),
        (
            [(0.5, 1.0), (7.0, None), (-7.0, None)],
            "CARE is not distinguishable from X at this length in 1 of 3 tasks (kNN +0.5 ± 1.0), "
            "uncertainty unknown in 2 (linear +7.0, COCO −7.0).",
        ),
    ],
)
def test_the_words(figures, words):
    rows = []
    for task, (points, half_width) in zip(("kNN", "linear", "COCO"), figures, strict=False):
        rows += pair(task, points, half_width or 1.0, "X")
        if half_width is None:
            del rows[-1]["resampled"]
    has_interval = [half_width is not None for _, half_width in figures]
    ends = [COVERED] * any(has_interval) + [UNKNOWN] * (not all(has_interval)) + [LENGTHEN]
    assert verdict(rows) == " ".join([words, *ends])


def test_chance_is_told_last():
    rows = [
        row("attention", "CARE", 29.0, [0, 0.1], "inside", area=31.0),
        row("attention", "random", 33.0, [0, 0], "inside"),
        *pair("kNN", 9.0, 1.0),
    ]
    assert [sentence.split(" in ")[0] for sentence in findings(differences(rows))] == [
        "CARE is behind random",
        "CARE is ahead of random initialisation",
        "CARE is behind chance",
    ]


def test_without_care_there_is_no_verdict_and_without_others_no_comparison():
    assert verdict([]) == ""
    assert verdict([row("kNN", "runs/r50", 1.0), row("kNN", "random", 1.0)]) == ""
    reported = row("kNN", "CARE", 1.0, source="reported by the paper")
    assert verdict([reported, row("kNN", "random", 1.0)]) == ""
    alone = [row("kNN", "CARE", 1.0), row("linear", "random", 1.0)]
    assert verdict(alone) == (
        "No other encoder was evaluated as CARE was, on the same task, settings and data. "
        "Give it baselines: care pipeline run --baselines random:ENCODER."
    )


class Page(HTMLParser):
    """Text in order, and the attributes of all elements."""

    def __init__(self, text):
        super().__init__()
        self.text, self.attributes = "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.attributes.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data.replace("\xa0", " ")

    def labels(self, tag):
        """What those hear who do not see the elements."""
        of_tag = [attributes for name, attributes in self.attributes if name == tag]
        return [each["aria-label"] for each in of_tag if each.get("aria-label")]


def write(folder, rows, **more):
    (folder / "results.json").write_text(json.dumps({"title": "x", "evaluations": rows} | more))
    return Page(report(folder).read_text())


def test_the_page_begins_with_the_verdict_even_of_results_that_have_none(tmp_path):
    rows = [*pair("kNN", 9.3, 2.1), *pair("linear", -0.5, 1.0)]
    del rows[2]["resampled"]
    page = write(tmp_path, rows)
    sentence = findings(differences(rows))[0]
    assert 0 < page.text.index(sentence) < page.text.index(COVERED) < page.text.index("Results")
    assert page.labels("svg") == [
        "CARE − random initialisation, kNN: +9.3 points, 95 % interval +7.2 to +11.4, ahead",
        "CARE − random initialisation, linear: −0.5 points, uncertainty unknown",
    ]
    assert write(tmp_path, rows, verdict="of another version").text == page.text


def test_a_page_without_care_has_neither_verdict_nor_picture(tmp_path):
    page = write(tmp_path, [row("kNN", "runs/r50", 1.0), row("kNN", "random", 1.0)])
    assert "Verdict" not in page.text
    assert not [tag for tag, _ in page.attributes if tag in ("svg", "section")]


def test_names_of_encoders_are_text_on_the_page(tmp_path):
    name = '<b>"it" & co</b>'
    page = write(tmp_path, pair("<i>kNN</i>", 9.0, 1.0, name))
    assert f"CARE is ahead of {name} in <i>kNN</i> (+9.0 ± 1.0)." in page.text
    assert not [tag for tag, _ in page.attributes if tag in ("b", "i")]
    assert page.labels("svg")[0].startswith(f"CARE − {name}, <i>kNN</i>: +9.0 points")


def test_a_picture_keeps_order_and_scale():
    rows = [*pair("kNN", 9.0, 2.0), *pair("linear", -3.0, 1.0), *pair("COCO", 0.0, 1.0)]
    drawn_picture = picture(differences(rows))
    ((title, whiskers),) = drawn_picture.pairs
    assert title == "CARE − random initialisation"
    scale = ({label: place for place, label in drawn_picture.ticks}["+5"] - drawn_picture.zero) / 5
    for whisker, (points, half_width) in zip(whiskers, ((9, 2), (-3, 1), (0, 1)), strict=True):
        assert whisker.centre == pytest.approx(drawn_picture.zero + scale * points, abs=0.02)
        assert whisker.interval == pytest.approx(
            [drawn_picture.zero + scale * (points + end) for end in (-half_width, half_width)],
            abs=0.02,
        )
        assert 0 < whisker.interval[0] < whisker.interval[1] < 100


@pytest.mark.parametrize("points", [0.0, 0.003, -0.2, 7.0, 99.0])
def test_any_axis_has_a_few_round_ticks_with_zero(points):
    rows = [row("kNN", "random", 0.0), row("kNN", "CARE", points)]
    ticks = picture(differences(rows)).ticks
    assert 1 <= len(ticks) <= 5
    assert "0" in [label for _, label in ticks]
    for place, label in ticks:
        assert re.fullmatch(r"0|[+−][\d.e+-]+", label)
        assert 0 <= place <= 100


def test_the_terminal_has_it_above_the_tables(capsys):
    rows = pair("kNN", 9.0, 1.0)
    show_results(rows)
    printed = capsys.readouterr().out
    assert printed.startswith(verdict(rows) + "\n\n")
    show_results(rows, as_json=True)
    assert json.loads(capsys.readouterr().out) == rows
