import json
from html.parser import HTMLParser
import pytest
from evaluation_rows import pair, row
from care.show import differences, report, verdict
from care.show.paper import paper
from care.show.results import tables
from care.show.verdict import _NOT_AHEAD_OF_C_STREAM as NOT_AHEAD
from care.show.verdict import advice, findings
from flows.cli.tables import show_results

LENGTHEN = "For a firmer answer train longer, by more --steps."
COVERED = (
    "± is the half-width of a 95 % interval in percentage points; it covers the choice of"
    " validation images (resampled) and, where a task has several trials, the seeds of the"
    " evaluation, but only one pre-training of each encoder: another seed of pre-training"
    " may move the differences further."
)
LACKING = "Without ± the uncertainty is unknown: results lack resampled images."
UNKNOWN = f"{LACKING} Evaluate again to learn it."


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


def test_what_no_label_decides_is_in_tables_but_in_no_verdict():
    measures = {"agreement": 40.0, "rankme": 30.2, "lidar": 9.0}
    of_scores = pair("kNN", 3.0, 1.0)
    label_free = []
    for rank, encoder in enumerate(("random initialisation", "CARE")):
        figures = measures | {"alignment": 0.0625, "uniformity": -1.5 - rank}
        label_free.append({"task": "label-free quality", "encoder": encoder, **figures})
    assert verdict(label_free) == ""
    assert verdict([*of_scores, *label_free]) == verdict(of_scores)
    (table,) = tables(label_free)
    assert table.headings == ["agreement %", "RankMe", "LiDAR", "alignment", "uniformity"]
    assert table.lines[1].values == ["40.0", "30.2", "9.0", "0.062", "-2.50"]
    assert not any(line.best for line in table.lines)


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
    assert not [tag for tag, _ in page.attributes if tag == "svg"]
    assert "verdict" not in [attributes.get("class") for _, attributes in page.attributes]


def test_names_of_encoders_are_text_on_the_page(tmp_path):
    name = '<b>"it" & co</b>'
    page = write(tmp_path, pair("<i>kNN</i>", 9.0, 1.0, name))
    assert f"CARE is ahead of {name} in <i>kNN</i> (+9.0 ± 1.0)." in page.text
    assert not [tag for tag, _ in page.attributes if tag in ("b", "i")]
    assert page.labels("svg")[0].startswith(f"CARE − {name}, <i>kNN</i>: +9.0 points")


def test_the_terminal_has_it_above_the_tables(capsys):
    rows = pair("kNN", 9.0, 1.0)
    show_results(rows)
    printed = capsys.readouterr().out
    assert printed.startswith(verdict(rows) + "\n\n")
    show_results(rows, as_json=True)
    assert json.loads(capsys.readouterr().out) == rows


# what to make of it


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("C-stream alone", ["5.5 points", "care reproduce --arms c-stream,care --seeds 0,1,2"]),
        ("random initialisation", ["--steps", "--lr"]),
    ],
)
@pytest.mark.parametrize("points", [-3.0, 0.0])
def test_a_page_says_what_it_means_that_care_is_not_ahead(tmp_path, other, words, points):
    rows = pair("kNN", points, 1.0, other)
    (paragraph,) = advice(differences(rows))
    assert all(word in paragraph for word in words)
    (tmp_path / "results.json").write_text(json.dumps({"evaluations": rows}))
    page = report(tmp_path).read_text()
    assert "What this means, and what to try" in page
    assert words[-1] in page


def test_where_care_is_ahead_there_is_nothing_to_explain(tmp_path):
    rows = pair("kNN", 9.0, 1.0)
    assert advice(differences(rows)) == []
    (tmp_path / "results.json").write_text(json.dumps({"evaluations": rows}))
    assert "what to try" not in report(tmp_path).read_text()


def test_the_gain_that_the_page_names_is_the_papers():
    linear = {
        (line["method"], line["epochs"]): line["top1"]
        for line in paper()
        if line["task"] == "linear" and line["encoder"] == "ResNet-50" and line["table"]
    }
    for epochs, gain in ((100, "5.5"), (800, "1.3")):
        assert f"{linear['CARE', epochs] - linear['BYOL', epochs]:.1f}" == gain
        assert gain in NOT_AHEAD
