import json
import re
import pytest
from evaluation_rows import DIGESTS, evaluation
from care import CareError
from care.show import as_markdown, compared, gather
from care.show.paper import paper
from care.show.results import tables
from shards import ShardError


def papers(task):
    return [row["task"] for row in paper()].count(task)


def put(folder, *rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps({"title": "x", "evaluations": rows}))


def lines_of(rows):
    return [line[:3] for table in tables(rows) for line in table.lines]


def test_gathering_takes_every_result_below_a_folder(tmp_path):
    put(tmp_path / "b", evaluation(top1=2.0))
    put(tmp_path / "a" / "deep", evaluation(top1=1.0), evaluation("linear", top1=3.0))
    put(tmp_path, evaluation(top1=4.0))
    put(tmp_path / "none")
    (tmp_path / "a" / "losses.jsonl").write_text("no JSON")
    gathered = gather(str(tmp_path))
    want = [
        ("results.json", 4.0),
        ("b/results.json", 2.0),
        ("a/deep/results.json", 1.0),
        ("a/deep/results.json", 3.0),
    ]
    assert [(row["file"], row["top1"]) for row in gathered] == want
    assert gathered[0] == evaluation(top1=4.0, file="results.json")
    assert gather(tmp_path / "a" / "deep")[0]["file"] == "results.json"


def test_the_order_of_settings_sets_no_results_apart():
    rows = [
        evaluation(encoder="a", settings={"k": 1, "size": 32}, top1=1.0),
        evaluation(encoder="b", settings={"size": 32, "k": 1}, top1=2.0),
    ]
    assert {task for task, *_ in lines_of(rows)} == {"kNN"}


def test_a_result_that_is_in_two_files_is_told_once_and_by_the_outer_one(tmp_path):
    put(
        tmp_path,
        evaluation(encoder="CARE", top1=4.0),
        evaluation(encoder="random", top1=3.0, digests=DIGESTS | {"encoder": "f" * 64}),
    )
    put(tmp_path / "evaluations", evaluation(encoder="runs/x", top1=4.0))
    assert [row["encoder"] for row in gather(tmp_path)] == ["CARE", "random"]
    for name, other in (
        ("top1", 4.1),
        ("seed", 1),
        ("settings", {"size": 96}),
        ("digests", DIGESTS | {"val": "c" * 64}),
    ):
        put(tmp_path / "evaluations", evaluation(encoder="runs/x", **{"top1": 4.0, name: other}))
        assert [row["encoder"] for row in gather(tmp_path)] == ["CARE", "random", "runs/x"], name
    bare = {"task": "kNN", "encoder": "x", "top1": 1.0}  # without digests nobody knows
    put(tmp_path / "c", bare)
    put(tmp_path / "d", bare)
    assert [row["file"] for row in gather(tmp_path)][2:4] == ["c/results.json", "d/results.json"]


@pytest.mark.parametrize(
    "content",
    [
        [],
        7,
        "text",
        {},
        {"evaluations": None},
        {"evaluations": [1]},
        {"evaluations": [{"task": "kNN", "top1": 1.0}]},
        {"evaluations": [{"task": "kNN", "encoder": "x", "top1": "much"}]},
        {"evaluations": [{"task": "kNN", "encoder": "x", "top1": [1]}]},
        {"results": {"arc": 0.5}},
        {"evaluations": [{"task": "kNN", "encoder": "x", "settings": [1], "top1": 1.0}]},
    ],
)
def test_another_programs_results_are_refused_by_name(tmp_path, content):
    put(tmp_path / "good", evaluation(top1=1.0))
    (tmp_path / "results.json").write_text(json.dumps(content))
    message = f"{tmp_path}/results.json holds no evaluations of a care command; move it away"
    with pytest.raises(CareError, match=re.escape(message)):
        gather(tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    put(tmp_path / "good", evaluation(top1=1.0))
    (tmp_path / "bad").mkdir()
    content = (tmp_path / "good" / "results.json").read_bytes()
    (tmp_path / "bad" / "results.json").write_bytes(content[:-9])
    with pytest.raises(ShardError, match=r"bad/results\.json cannot be read as JSON"):
        gather(tmp_path)


def test_a_folder_without_evaluations_is_refused(tmp_path):
    put(tmp_path / "none")
    message = r"no results\.json in or below .* holds evaluations; wanted a folder of `care eval"
    with pytest.raises(CareError, match=message):
        gather(tmp_path)
    with pytest.raises(CareError, match="missing does not exist; wanted a folder of `care eval"):
        gather(tmp_path / "missing")


def test_the_papers_rows_stand_beside_the_same_task_and_no_other():
    ours = [
        evaluation("VOC C4", ap=50.0, ap50=80.0, ap75=55.0),
        evaluation(top1=1.0),
        evaluation("linear on cached features", top1=2.0),
    ]
    rows = compared(ours)
    assert rows[:3] == ours
    reported = rows[3:]
    assert [row["task"] for row in reported] == ["VOC C4"] * papers("VOC C4")
    assert all(row["source"] == "reported by the paper (ImageNet)" for row in reported)
    assert reported[-1]["encoder"] == "CARE, ResNet-50, 400 epochs"
    assert reported[0]["encoder"] == "random initialisation, ResNet-50"
    assert (reported[-1]["ap"], reported[-1]["ap50"], reported[-1]["ap75"]) == (57.9, 83.0, 64.7)
    assert compared(ours[1:]) == ours[1:]


def test_what_is_reported_is_marked_on_every_line_and_is_never_the_best():
    rows = compared(
        [
            evaluation("linear", top1=40.0, top5=60.0, best1=41.0),
            evaluation("linear", "random:resnet50", top1=4.0),
        ]
    )
    (table,) = tables(rows)
    assert table.headings == ["top-1 %", "top-5 %", "best epoch's top-1 %"]
    assert table.lines[:2] == [
        ("linear", "runs/r50", ["40.0", "60.0", "41.0"], True),
        ("linear", "random:resnet50", ["4.0", "–", "–"], False),
    ]
    labels = {
        "linear, reported by the paper (ImageNet)",
        "linear, reported by the released README (ImageNet)",
    }
    assert len(table.lines) == 2 + papers("linear")
    assert {label for label, *_ in table.lines[2:]} == labels
    assert not any(best for *_, best in table.lines[2:])
    assert all("not by this package" in table.protocols[label] for label in labels)
    assert table.protocols["linear"] == "k 20"
    text = as_markdown(rows)
    others = [line for line in text.splitlines() if " epochs |" in line or "CMC" in line]
    assert text.count("**") == 2
    assert len(others) == papers("linear")
    assert all("reported by" in line for line in others)


def test_rows_that_were_judged_in_other_ways_do_not_look_alike():
    rows = [
        evaluation(top1=50.0),
        evaluation(encoder="random:resnet50", top1=40.0),
        evaluation(top1=60.0, settings={"size": 96}),
        evaluation(top1=70.0, digests=DIGESTS | {"val": "c" * 64}),
        evaluation(top1=55.0, seed=3),
        evaluation(top1=56.0, protocol="k 200"),
    ]
    (table,) = tables(rows)
    assert [(label, best) for label, _, _, best in table.lines] == [
        ("kNN (1)", True),
        ("kNN (1)", False),
        ("kNN (2)", True),
        ("kNN (3)", True),
        ("kNN (4)", True),
        ("kNN (5)", True),
    ]
    assert table.protocols == {
        "kNN (1)": f"k 20; seed 0; size 224; val data {'b' * 12}",
        "kNN (2)": f"k 20; seed 0; size 96; val data {'b' * 12}",
        "kNN (3)": f"k 20; seed 0; size 224; val data {'c' * 12}",
        "kNN (4)": f"k 20; seed 3; size 224; val data {'b' * 12}",
        "kNN (5)": f"k 200; seed 0; size 224; val data {'b' * 12}",
    }


def test_what_is_part_of_the_result_or_changes_none_does_not_part_rows():
    settings = {"size": 224, "workers": 0, "checkpoint_every": 500}
    rows = [
        evaluation(top1=50.0, settings=settings | {"lrs": [0.1]}, chosen={"lrs": [0.1]}),
        evaluation(
            encoder="b",
            top1=51.0,
            settings=settings | {"lrs": [5.0], "workers": 8},
            chosen={"lrs": [5.0]},
        ),
        evaluation(
            encoder="c",
            top1=52.0,
            settings=settings | {"checkpoint_every": 9, "metric_backend": "pycocotools"},
            versions={"care": "9"},
        ),
    ]
    assert lines_of(rows) == [
        ("kNN", "runs/r50", ["50.0"]),
        ("kNN", "b", ["51.0"]),
        ("kNN", "c", ["52.0"]),
    ]
    assert tables(rows)[0].protocols == {"kNN": "k 20"}


def test_encoders_of_one_name_are_told_apart_by_their_files(tmp_path):
    put(tmp_path / "a", evaluation(encoder="CARE", top1=1.0))
    put(
        tmp_path / "b", evaluation(encoder="CARE", top1=2.0), evaluation(encoder="random", top1=0.5)
    )
    assert [encoder for _, encoder, _ in lines_of(gather(tmp_path))] == [
        "CARE (a/results.json)",
        "CARE (b/results.json)",
        "random",
    ]


def test_means_of_trials_have_their_deviation():
    rows = [
        evaluation(top1=71.24, top1_std=0.26, top5=90.0, top5_std=0.04, trials=5),
        evaluation(encoder="b", top1=70.0, top1_std=None, top5=None, trials=5),
    ]
    assert lines_of(rows) == [
        ("kNN", "runs/r50", ["71.2 ± 0.3", "90.0 ± 0.0"]),
        ("kNN", "b", ["70.0", "–"]),
    ]
    assert tables(rows)[0].protocols == {"kNN": "k 20; mean ± standard deviation of 5 trials"}
    assert [label for label, *_ in lines_of([*rows, evaluation(top1=1.0)])] == [
        "kNN (1)",
        "kNN (1)",
        "kNN (2)",
    ]
    assert tables([evaluation(top1=1.0, top5=None)])[0].headings == ["top-1 %"]


def test_resampled_figures_change_no_table_and_no_identity(tmp_path):
    row = evaluation(top1=50.0)
    for name, figures in (("a", []), ("b", [49.0, 51.0])):
        (tmp_path / name).mkdir()
        content = {"title": "", "evaluations": [row | {"resampled": figures}]}
        (tmp_path / name / "results.json").write_text(json.dumps(content))
    assert len(gather(tmp_path)) == 1
    assert tables(gather(tmp_path)) == tables([row])
