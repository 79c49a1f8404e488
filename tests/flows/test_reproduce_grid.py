"""The order of a grid's runs, and what becomes of their figures, with stages that are made up."""

import inspect
import json
import re
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
import pytest
from flows.reproduce import flow
from flows.reproduce.arms import ARMS
from flows.reproduce.campaign import measured_ratio
from flows.reproduce.flow import care_reproduce
from flows.reproduce.object_rows import object_rows
from flows.reproduce.runs import RunResult
from flows.works import WORKS
from flows.works.timing import timing
from shards import storage
from shards.errors import Failure, Misuse, Stopped

GRID = {"arms": ("c-stream", "care"), "seeds": (0, 1), "labels": (0.01, 0.3), "steps": 100}
VERSIONS = {"care": "0", "torch": "0", "torchvision": "0"}


class MadeUpSchedule:
    """Stages that are done at once: the better the arm, the more steps it has had.

    Args:
        out: folder of the grid.
        execution: of the real one; it decides nothing here.
    """

    started: list[tuple[str, str, dict]]
    failing: dict[str, Exception]

    def __init__(self, out: str, execution) -> None:
        self.out = out
        self.children = SimpleNamespace(at_a_time=lambda: 1)

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        pass

    def at_end(self, *function, **keywords) -> None:
        """Nothing is left to be stopped at the end."""

    def start(self, stage) -> Future:
        name, work, inputs = stage.name, stage.work, stage.inputs
        self.started.append((name, work, inputs))
        future = Future()
        failure = self.failing.get(name)
        if failure is None:
            url = f"{self.out}/stages/{name}"
            result = self.result(work, inputs)
            if inputs.get("verb") == "attention":
                result |= self.objects(url, result)
            future.set_result({"url": url, **result})
        else:
            future.set_exception(failure)
        return future

    def result(self, work: str, inputs: dict) -> dict:
        if work == "build":
            return {"digest": inputs["source"], "counts": {"kept": 64}}
        if work == "pretrain":
            seconds = 2.0 if inputs["t_stream"] else 1.0
            timing = {"seconds": 100.0, "step_seconds": seconds, "hardware": "none"}
            return {"digest": f"{inputs['steps']}", "timing": timing}
        encoder = inputs["encoder"]
        digest = encoder if isinstance(encoder, str) else encoder["digest"]
        top1 = 10.0 + 0.1 * inputs["seed"] + (float(digest) / 100 if digest.isdigit() else 0)
        row = {"task": inputs.get("verb", work), "top1": top1, "resampled": [top1, top1 + 1]}
        return {"rows": [row | {"digests": {"encoder": digest}, "versions": VERSIONS}]}

    def objects(self, url: str, result: dict) -> dict:
        """What an evaluation of attention leaves: a table of two images."""
        columns = ("inside", "area", "pointing", "pointing_chance", "corloc", "corloc_chance")
        table = f"key,{','.join(columns)}\na.jpg,0.5,0.2,1,0.3,0,0.4\nb.jpg,0.7,0.2,0,0.3,0,0.4\n"
        storage.write_bytes(f"{url}/seed-0/attention.csv", table.encode())
        figures = dict(zip(columns, (60.0, 20.0, 50.0, 30.0, 0.0, 40.0), strict=True))
        (row,) = result["rows"]
        row.pop("top1")
        return {"rows": [row | figures], "outputs": {"seed-0/attention.csv": ""}}


def test_what_is_measured_on_objects_is_told_as_three_tasks(tmp_path: Path) -> None:
    row = {"task": "attention on objects", "jaccard": 1.0, "encoder": "care", "resampled": [9.0]}
    result = {"url": str(tmp_path), "rows": [row]}
    result |= MadeUpSchedule.objects(None, str(tmp_path), {"rows": [row | {"top1": 1}]})
    inside, pointing, corloc = object_rows(result, ("attention", "localisation"))
    assert (inside["task"], inside["inside"], inside["chance"]) == (
        "attention inside objects",
        60,
        20,
    )
    assert (pointing["task"], pointing["pointing"], pointing["chance"]) == ("pointing game", 50, 30)
    assert (corloc["task"], corloc["corloc"], corloc["chance"]) == ("CorLoc", 0, 40)
    assert len(inside["resampled"]) == 200
    assert {*inside["resampled"]} <= {50.0, 60.0, 70.0}
    assert {*pointing["resampled"]} <= {0.0, 50.0, 100.0}
    assert "jaccard" not in pointing
    assert [each["task"] for each in object_rows(result, ("localisation",))] == [
        "pointing game",
        "CorLoc",
    ]


@pytest.fixture
def schedule(monkeypatch) -> type[MadeUpSchedule]:
    """What the flow starts its stages with, forgetful between tests."""
    monkeypatch.setattr(MadeUpSchedule, "started", [], raising=False)
    monkeypatch.setattr(MadeUpSchedule, "failing", {}, raising=False)
    monkeypatch.setattr(flow, "Schedule", MadeUpSchedule)
    monkeypatch.setattr(flow, "label_counts", lambda sets, labels: {0.3: 20})
    return MadeUpSchedule


def names(schedule: type[MadeUpSchedule], work: str) -> list[str]:
    return [name for name, of, _ in schedule.started if of == work]


def test_every_run_is_trained_then_judged_by_everything(schedule, tmp_path: Path) -> None:
    content = care_reproduce.fn(out=str(tmp_path), **GRID)
    runs = [f"{arm}-seed-{seed}" for seed in (0, 1) for arm in ("c-stream", "care")]
    assert [run["run"] for run in content["runs"]] == runs
    assert names(schedule, "pretrain") == [f"pretrain-{run}" for run in runs]
    tasks = ("knn", "linear", "finetune-0.3")
    tasks = (*tasks, "attention")
    assert {*names(schedule, "judge")} == {f"{task}-{run}" for task in tasks for run in runs}
    objects = {"attention inside objects", "pointing game", "CorLoc"}
    assert {figure["task"] for figure in content["arms"]} >= objects
    assert content["skipped"] == ["1 % of the labels: too few to hold one out"]
    assert {figure["task"] for figure in content["arms"]} >= {"knn", "30 % of the labels"}


@pytest.mark.parametrize(
    ("evaluations", "works"),
    [
        (("knn", "linear"), {"features", "judge"}),
        (("linear",), {"features", "judge"}),
        (("finetune",), {"judge"}),
        (("attention",), {"judge"}),
        (("localisation",), {"judge"}),
    ],
)
def test_a_grid_is_judged_by_what_is_asked_for(schedule, tmp_path, evaluations, works) -> None:
    content = care_reproduce.fn(out=str(tmp_path), **GRID, evaluations=evaluations)
    judged = {work for _, work, _ in schedule.started} - {"build", "pretrain"}
    assert judged == works
    tasks = {
        "finetune": {"30 % of the labels"},
        "attention": {"attention inside objects"},
        "localisation": {"pointing game", "CorLoc"},
    }
    wanted = set[str]().union(*(tasks.get(name, {name}) for name in evaluations))
    assert {figure["task"] for figure in content["arms"]} == wanted
    # what was not asked for is not missing
    assert bool(content["skipped"]) == ("finetune" in evaluations)


def test_objectives_are_compared_each_with_itself(schedule, tmp_path: Path) -> None:
    grid = GRID | {"arms": ("care", "c-stream", "objective-simclr-alone", "objective-simclr")}
    content = care_reproduce.fn(out=str(tmp_path), **grid, evaluations=("knn",))
    pairs = {pair["objective"]: pair for pair in content["objectives"]}
    assert [*pairs] == ["byol", "simclr"]
    for name, (alone, beside) in {
        "byol": ("c-stream", "care"),
        "simclr": ("objective-simclr-alone", "objective-simclr"),
    }.items():
        figures = {figure["arm"]: figure["mean"] for figure in content["arms"]}
        pair = pairs[name]
        assert (pair["alone"]["mean"], pair["with_care"]["mean"]) == (
            figures[alone],
            figures[beside],
        )
        assert pair["difference"]["reference"] == alone
        assert pair["difference"]["points"] == pytest.approx(figures[beside] - figures[alone])
    page = (tmp_path / "reproduce.md").read_text()
    assert "| objective | knn: alone | with CARE | difference |" in page
    (line,) = re.findall(r"\| SimCLR \| (.*) \|\n", page)
    assert line.split(" | ")[0] == "11.1 ± 0.1"


def test_a_grid_of_byol_alone_has_no_table_of_objectives(schedule, tmp_path: Path) -> None:
    content = care_reproduce.fn(out=str(tmp_path), **GRID)
    assert content["objectives"] == []
    assert "## Objectives" not in (tmp_path / "reproduce.md").read_text()


def test_an_objective_that_was_trained_one_way_has_no_line(schedule, tmp_path: Path) -> None:
    grid = GRID | {"arms": ("care", "c-stream", "objective-moco-v2-alone")}
    assert care_reproduce.fn(out=str(tmp_path), **grid)["objectives"] == []


def test_a_stage_still_has_only_its_own_inputs_when_it_begins(schedule, tmp_path: Path) -> None:
    care_reproduce.fn(out=str(tmp_path), **GRID)
    for name, work, inputs in schedule.started:
        function = getattr(import_module(WORKS[work]), work)
        inspect.signature(function).bind("out", **inputs)
        assert ("called" in inputs) == (work == "judge"), name


def test_each_finished_run_leaves_its_json(schedule, tmp_path: Path) -> None:
    content = care_reproduce.fn(out=str(tmp_path), **GRID)
    assert json.loads((tmp_path / "reproduce.json").read_text()) == content
    kept = json.loads((tmp_path / "results" / "care-seed-1.json").read_text())
    assert kept["arm"]["name"] == "care"
    assert (kept["seed"], kept["steps"], kept["compute_ratio"]) == (1, 100, None)
    assert kept["digests"] == {"train": "scenes:0+2000", "val": "scenes:2000+400", "encoder": "100"}
    assert {row["encoder"] for row in kept["rows"]} == {"care"}


def test_runs_of_equal_compute_come_last_and_are_as_much_longer(schedule, tmp_path: Path) -> None:
    arms = ("c-stream-equal-compute", "c-stream", "care")
    content = care_reproduce.fn(out=str(tmp_path), **GRID | {"arms": arms})
    assert all("equal" in name for name in names(schedule, "pretrain")[-2:])
    assert content["runs"][0]["run"] == "c-stream-equal-compute-seed-0"
    assert [run["steps"] for run in content["runs"]] == [200, 100, 100] * 2
    assert [run["compute_ratio"] for run in content["runs"]] == [2, None, None] * 2
    assert (
        "| c-stream-equal-compute | the C-stream alone, for as long as CARE takes | 0, 1 |"
        in (tmp_path / "reproduce.md").read_text()
    )


def test_a_ratio_once_found_stays_until_another_is_given(schedule, tmp_path: Path) -> None:
    grid = GRID | {"arms": ("c-stream", "care", "c-stream-equal-compute")}
    care_reproduce.fn(out=str(tmp_path), compute_ratio=3, **grid)
    content = care_reproduce.fn(out=str(tmp_path), **grid | {"seeds": (0, 1, 2)})
    assert [run["steps"] for run in content["runs"]] == [100, 100, 300] * 3
    assert not (tmp_path / "results" / "earlier").exists()
    content = care_reproduce.fn(out=str(tmp_path), compute_ratio=1.5, **grid)
    assert [run["steps"] for run in content["runs"]] == [100, 100, 150] * 2
    assert len([*(tmp_path / "results" / "earlier").iterdir()]) == 2


def test_a_run_that_fails_is_listed_and_stops_no_other(schedule, tmp_path: Path) -> None:
    schedule.failing["pretrain-care-seed-0"] = Failure("told\nthe embeddings collapsed")
    schedule.failing["knn-c-stream-seed-1"] = RuntimeError("a bug")
    content = care_reproduce.fn(out=str(tmp_path), **GRID, evaluations=("knn",))
    assert content["failed"] == [
        {"run": "care-seed-0", "message": "the embeddings collapsed"},
        {"run": "c-stream-seed-1", "message": "a bug"},
    ]
    assert [run["run"] for run in content["runs"]] == ["c-stream-seed-0", "care-seed-1"]
    page = (tmp_path / "reproduce.md").read_text()
    assert "- care-seed-0 failed: the embeddings collapsed" in page
    assert "nothing can be compared yet" in page


def test_equal_compute_fails_where_nothing_tells_the_ratio(schedule, tmp_path: Path) -> None:
    for seed in (0, 1):
        schedule.failing[f"pretrain-care-seed-{seed}"] = Failure("collapsed")
    arms = ("c-stream", "care", "c-stream-equal-compute")
    content = care_reproduce.fn(out=str(tmp_path), **GRID | {"arms": arms})
    told = [failure["message"] for failure in content["failed"] if "equal" in failure["run"]]
    assert told == ["no finished runs of care and c-stream tell its steps"] * 2


def test_a_stop_ends_the_grid_and_keeps_what_is_finished(schedule, tmp_path: Path) -> None:
    schedule.failing["pretrain-care-seed-0"] = Stopped("stopped on request")
    with pytest.raises(Stopped):
        care_reproduce.fn(out=str(tmp_path), **GRID)
    assert [path.stem for path in (tmp_path / "results").iterdir()] == ["c-stream-seed-0"]


def test_the_ratio_of_equal_compute_is_of_median_steps(schedule, tmp_path: Path) -> None:
    care_reproduce.fn(out=str(tmp_path), **GRID)
    kept = json.loads((tmp_path / "results" / "care-seed-0.json").read_text())

    def run(arm: str, seed: int, seconds: float) -> RunResult:
        changes = {"arm": ARMS[arm], "seed": seed, "timing": {"step_seconds": seconds}}
        return RunResult(**kept | changes)

    runs = [run("care", seed, seconds) for seed, seconds in enumerate((0.2, 0.3, 0.9))]
    assert measured_ratio(runs) is None
    runs += [run("c-stream", 0, 0.2), run("lambda-0", 0, 7.0)]
    assert measured_ratio(runs) == 1.5


def test_a_trainings_time_is_of_all_its_processes(tmp_path: Path) -> None:
    lines = [1.0, 1.5, 2.0, 3.0, 0.8, 1.3]  # continued after four steps
    text = "".join(json.dumps({"step": n, "seconds": s}) + "\n" for n, s in enumerate(lines))
    (tmp_path / "timing.jsonl").write_text(text)
    measured = timing(str(tmp_path))
    assert measured.seconds == pytest.approx(3.0 + 1.3)
    assert measured.step_seconds == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": ("c-steam",)}, "did you mean c-stream"),
        ({"arms": ()}, "wanted arms"),
        ({"seeds": ()}, "wanted seeds"),
        ({"reference": "random"}, "wanted a reference among the arms"),
        ({"arms": ("care", "c-stream-equal-compute")}, "add them or give --compute-ratio"),
        ({"labels": (2.0,)}, "wanted shares of the labels"),
        ({"screen": 1.0}, "wanted a share of train"),
        ({"epochs": 1}, "wanted steps or epochs"),
        ({"evaluations": ("knn", "segment")}, "wanted evaluations of knn, .*; got segment"),
        ({"evaluations": ()}, "wanted evaluations of knn, .*; got none"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_starts(
    schedule,
    tmp_path: Path,
    settings: dict,
    message: str,
) -> None:
    with pytest.raises(Misuse, match=message):
        care_reproduce.fn(out=str(tmp_path), **GRID | settings)
    assert schedule.started == []
