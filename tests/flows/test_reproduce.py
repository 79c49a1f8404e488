"""`care reproduce`: a tiny grid as a flow, continued, grown, failed in part, refused."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
import pytest
from commands import care, environment, options, until
from PIL import Image
import shards
from care import AbsolutePosition, NoPosition, SinCosPosition, streams_for
from flows.cli import main
from flows.reproduce import campaign
from flows.reproduce.arms import ARMS, Arm, chosen_arms
from flows.reproduce.flow import care_reproduce
from flows.reproduce.images import folder_images, label_counts, scene_images
from flows.reproduce.laboratory import Laboratory
from flows.reproduce.runs import Run, RunResult
from flows.works.timing import timing
from flows.works.training import OBJECTIVES, POSITIONS
from shards.errors import Failure, Misuse, ShardError

TINY = {
    "encoder": "resnet18-small-half",
    "size": 32,
    "hidden": 16,
    "steps": 3,
    "batch_size": 8,
    "train_scenes": 24,
    "val_scenes": 16,
    "labels": (0.3,),
    "finetune_steps": 2,
    "checkpoint_every": 1,
}
GRID = TINY | {"arms": ("c-stream", "care"), "seeds": (0, 1)}
TASKS = {"kNN", "linear on cached features", "30 % of the labels", "attention inside objects"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A grid of two arms and two seeds, without Prefect, and what the flow gave; never changed."""
    out = tmp_path_factory.mktemp("finished") / "grid"
    return out, care_reproduce.fn(out=str(out), **GRID)


@pytest.fixture
def out(finished, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "grid", symlinks=True))


def stage_times(out: Path) -> dict[str, int]:
    """When the record of each stage was written."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("stages/*.json")}


def one_of(figures: list[dict], arm: str, task: str) -> dict:
    """The one of an arm on a task."""
    (found,) = [figure for figure in figures if (figure["arm"], figure["task"]) == (arm, task)]
    return found


def without_times(content: dict) -> dict:
    """What a grid gave, but for the seconds that its trainings took."""
    return content | {"runs": [run | {"timing": None} for run in content["runs"]]}


def test_every_run_leaves_its_json_and_the_grid_its_tables(finished) -> None:
    out, content = finished
    names = [f"{arm}-seed-{seed}" for seed in (0, 1) for arm in ("c-stream", "care")]
    assert [run["run"] for run in content["runs"]] == names
    assert {path.stem for path in (out / "results").iterdir()} == {*names}
    for name in names:
        kept = json.loads((out / "results" / f"{name}.json").read_text())
        assert {row["task"] for row in kept["rows"]} == TASKS
        assert all(len(row["resampled"]) == 200 for row in kept["rows"])
        assert kept["timing"]["seconds"] >= kept["timing"]["step_seconds"] > 0
        assert "cores" in kept["timing"]["hardware"]
        assert kept["digests"].keys() == {"train", "val", "encoder"}
        assert kept["versions"]["care"]
        assert kept["settings"]["steps"] == kept["steps"] == 3
    assert json.loads((out / "reproduce.json").read_text()) == content
    page = (out / "reproduce.md").read_text()
    for line in content["verdict"].splitlines():
        assert line in page
    assert "| c-stream |" in page
    assert content["skipped"] == []


def test_the_tables_are_those_of_the_runs(finished) -> None:
    out, content = finished
    rows = {path.stem: json.loads(path.read_text())["rows"] for path in (out / "results").iterdir()}
    knn = {name: row["top1"] for name, of in rows.items() for row in of if row["task"] == "kNN"}
    mean = one_of(content["arms"], "care", "kNN")
    lead = one_of(content["differences"], "care", "kNN")
    assert mean["mean"] == pytest.approx((knn["care-seed-0"] + knn["care-seed-1"]) / 2)
    pairs = [knn[f"care-seed-{seed}"] - knn[f"c-stream-seed-{seed}"] for seed in (0, 1)]
    assert lead["points"] == pytest.approx(sum(pairs) / 2)
    assert lead["low"] < lead["points"] < lead["high"]
    assert lead["seeds"] == 2
    assert {one["arm"] for one in content["differences"]} == {"care", "chance"}


def test_again_nothing_is_redone_and_more_arms_compute_only_theirs(finished, out) -> None:
    content = finished[1]
    before = stage_times(out)
    assert care_reproduce.fn(out=str(out), **GRID) == content
    assert stage_times(out) == before
    more = GRID | {"arms": ("random", "c-stream", "c-stream-equal-compute", "care"), "seeds": (0,)}
    grown = care_reproduce.fn(out=str(out), compute_ratio=2, **more)
    new = {name for name in stage_times(out) if name not in before}
    assert all("random" in name or "equal-compute" in name for name in new)
    assert len([name for name in new if name.startswith("pretrain")]) == 1
    steps = {run["run"]: run["steps"] for run in grown["runs"]}
    assert (steps["c-stream-equal-compute-seed-0"], steps["random-seed-0"]) == (6, 0)
    assert all(stage_times(out)[name] == time for name, time in before.items())
    again = care_reproduce.fn(out=str(out), **more)  # the ratio that is kept, not one measured anew
    assert [run["compute_ratio"] for run in again["runs"]] == [None, None, 2, None]
    earlier = care_reproduce.fn(out=str(out), compute_ratio=3, **more)
    assert earlier["failed"] == []
    assert len([*(out / "results" / "earlier").iterdir()]) == 1


def test_a_run_that_fails_is_listed_and_stops_no_other(out, monkeypatch) -> None:
    do = Laboratory.do

    def fail(lab, job):
        if job.run.name == "care-seed-0":
            raise Failure("the embeddings collapsed")
        return do(lab, job)

    monkeypatch.setattr(Laboratory, "do", fail)
    content = care_reproduce.fn(out=str(out), **GRID)
    assert content["failed"] == [{"run": "care-seed-0", "message": "the embeddings collapsed"}]
    assert len(content["runs"]) == 3
    assert "care-seed-0 failed: the embeddings collapsed" in (out / "reproduce.md").read_text()
    assert {one["seeds"] for one in content["differences"] if one["arm"] == "care"} == {1}


def test_the_ratio_of_equal_compute_is_of_median_steps(finished) -> None:
    out, _ = finished
    some = json.loads((out / "results" / "care-seed-0.json").read_text())

    def took(arm: str, seed: int, seconds: float) -> RunResult:
        timed = some | {"arm": ARMS[arm], "seed": seed, "timing": {"step_seconds": seconds}}
        return RunResult(**timed)

    runs = [took("care", seed, seconds) for seed, seconds in enumerate((0.2, 0.3, 0.9))]
    assert campaign.measured_ratio(runs) is None
    runs += [took("c-stream", 0, 0.2), took("lambda-0", 0, 7.0)]
    assert campaign.measured_ratio(runs) == 1.5


def test_a_trainings_time_is_of_all_its_processes(tmp_path: Path) -> None:
    lines = [1.0, 1.5, 2.0, 3.0, 0.8, 1.3]  # continued after four steps
    text = "".join(json.dumps({"step": n, "seconds": s}) + "\n" for n, s in enumerate(lines))
    (tmp_path / "timing.jsonl").write_text(text)
    found = timing(str(tmp_path))
    assert found.seconds == pytest.approx(3.0 + 1.3)
    assert found.step_seconds == pytest.approx(0.5)


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm.t_stream])
def test_every_arm_is_a_network(name: str) -> None:
    arm = ARMS[name]
    inputs = Arm("care", "") if name == "care" else arm
    _, t = streams_for(
        arm.encoder("resnet18-small-half"),
        size=64,
        blocks=arm.blocks,
        position=POSITIONS[arm.position],
        zero_gamma=arm.zero_gamma,
        detach=arm.detach,
        objective=OBJECTIVES[arm.objective](hidden=8),
    )
    blocks = t.backbone.online.blocks
    assert len(blocks) == inputs.blocks
    kinds = {"none": NoPosition, "sin-cos": SinCosPosition, "absolute": AbsolutePosition}
    assert type(blocks[0].attention.position) is kinds.get(arm.position, POSITIONS["relative"])
    assert bool(blocks[0].expand[-1].weight.any()) != arm.zero_gamma
    assert t.detach == arm.detach


def test_arms_say_only_what_sets_them_apart() -> None:
    care_inputs = ARMS["care"].stage_inputs()
    assert care_inputs == {"t_stream": True, "attention_weight": 100}
    assert ARMS["c-stream"].stage_inputs() == {"t_stream": False, "attention_weight": 0}
    changed = {name: arm.stage_inputs().items() - care_inputs.items() for name, arm in ARMS.items()}
    assert changed["released"] == {("position", "absolute"), ("zero_gamma", False)}
    assert changed["blocks-3"] == {("blocks", 3)}
    assert ARMS["tap-layer2"].encoder("resnet50") == "resnet50:layer2"
    assert ARMS["care"].encoder("resnet50") == "resnet50"


def test_a_screen_leaves_val_untouched(tmp_path: Path) -> None:
    data = scene_images(100, 40, 0.2)
    assert data.parts == {"train": {"source": "scenes:0+80"}, "val": {"source": "scenes:80+20"}}
    assert data.scenes == range(80, 100)
    assert scene_images(100, 40, 0).scenes == range(100, 140)
    for part in ("train/x", "train/y", "val/x", "val/y"):
        (tmp_path / "photos" / part).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / part / "1.png")
    photos = str(tmp_path / "photos")
    parts = folder_images(photos, None, 0.25, str(tmp_path / "out")).parts
    train = f"{photos}/train"
    assert parts["train"] == {"source": train, "share": [0, 0.75]}
    assert parts["val"] == {"source": train, "share": [0.75, 1]}
    with pytest.raises(Misuse, match="another folder for results"):
        folder_images(photos, None, 0, f"{photos}/lab")


def test_shares_of_too_few_labels_and_other_classes_are_told_before_training(tmp_path) -> None:
    for name in ("train/x/1", "train/x/2", "train/y/1", "train/y/2", "val/x/1", "val/z/1"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((8, 8), 50).convert("RGB").save(path)
    for part in ("train", "val"):
        shards.build(tmp_path / part, tmp_path / "sets" / part)
    sets = {part: {"url": str(tmp_path / "sets" / part)} for part in ("train", "val")}
    assert label_counts(sets | {"val": sets["train"]}, (0.01, 0.5, 1)) == {1: 4}
    with pytest.raises(ShardError, match="only one of them has: y, z"):
        label_counts(sets, (0.5,))


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
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(Misuse, match=message):
        care_reproduce.fn(out=str(tmp_path), **GRID | settings)
    assert not [*tmp_path.glob("stages/pretrain-*")]


def test_each_arm_once_in_the_order_that_was_asked() -> None:
    assert [arm.name for arm in chosen_arms(["care", "random", "care"])] == ["care", "random"]
    assert Run(ARMS["care"], 3).name == "care-seed-3"


def test_the_command_explains_itself_and_an_unknown_arm_is_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["care", "reproduce", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return (stop.value.code or 0, *capsys.readouterr())

    code, text, _ = run("--help")
    assert code == 0
    for word in ("--arms", "--seeds", "--screen", "--compute-ratio", "Example: care reproduce"):
        assert word in text
    code, _, error = run("--arms", "lamda-1")
    assert code == 2
    assert len(error.splitlines()) == 1
    assert "did you mean lambda-1" in error
    assert "tap-layer2" in run("--list-arms")[1]


@pytest.mark.flows
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_in_the_middle_it_ends_with_the_same_table(
    finished,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    command = ("reproduce", "--plain", "--out", tmp_path, *options(GRID))
    process = care(*command, env=environment())
    until(lambda: [*tmp_path.glob("results/*.json")], 300, "a finished run")
    os.kill(process.pid, number)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 3}[number], output
    assert "Traceback" not in output
    known = stage_times(tmp_path)
    again = care(*command, env=environment())
    output = again.communicate(timeout=600)[0]
    assert again.returncode == 0, output
    assert all(stage_times(tmp_path)[name] == time for name, time in known.items())
    content = json.loads((tmp_path / "reproduce.json").read_text())
    assert without_times(content) == without_times(finished[1])


@pytest.mark.flows
def test_with_prefect_the_same_table(finished, tmp_path: Path) -> None:
    process = care("reproduce", "--out", tmp_path, *options(GRID), env=environment())
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    content = json.loads((tmp_path / "reproduce.json").read_text())
    assert without_times(content) == without_times(finished[1])
