"""`care reproduce` with its real stages: tiny grids, continued, grown, killed, under Prefect."""

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
from flows.cli import main
from flows.reproduce.flow import care_reproduce
from shards.errors import Failure

TINY = {
    "encoder": "resnet18-small-half",
    "size": 32,
    "hidden": 16,
    "steps": 3,
    "batch_size": 8,
    "labels": (0.3,),
    "finetune_steps": 2,
    "checkpoint_every": 1,
}
SCENES = {"train_scenes": 24, "val_scenes": 16}
GRID = TINY | SCENES | {"arms": ("c-stream", "care"), "seeds": (0, 1)}
CLASSIFIED = {"kNN", "linear on cached features", "30 % of the labels"}
TASKS = CLASSIFIED | {"attention inside objects", "pointing game", "CorLoc"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A grid of two arms and two seeds, without Prefect, and what the flow gave; never changed."""
    out = tmp_path_factory.mktemp("finished") / "grid"
    return out, care_reproduce.fn(out=str(out), **GRID)


@pytest.fixture
def out(finished, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "grid", symlinks=True))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Class folders of noise, to train and to judge on."""
    folder = tmp_path / "photos"
    for part, count in (("train", 12), ("val", 8)):
        for number in range(count):
            path = folder / part / "xy"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((40, 40), 50 + number).convert("RGB").save(path)
    return folder


def stage_times(out: Path) -> dict[str, int]:
    """When the record of each stage was written."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("stages/*.json")}


def figure_of(figures: list[dict], arm: str, task: str) -> dict:
    """The only figure of an arm on a task."""
    (figure,) = [each for each in figures if (each["arm"], each["task"]) == (arm, task)]
    return figure


def without_times(content: dict) -> dict:
    """What a grid gave, but for the seconds that its trainings took."""
    return content | {"runs": [run | {"timing": None} for run in content["runs"]]}


@pytest.mark.flows
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


@pytest.mark.flows
def test_the_tables_are_those_of_the_runs(finished) -> None:
    out, content = finished
    rows = {path.stem: json.loads(path.read_text())["rows"] for path in (out / "results").iterdir()}
    knn = {name: row["top1"] for name, of in rows.items() for row in of if row["task"] == "kNN"}
    mean = figure_of(content["arms"], "care", "kNN")
    lead = figure_of(content["differences"], "care", "kNN")
    assert mean["mean"] == pytest.approx((knn["care-seed-0"] + knn["care-seed-1"]) / 2)
    pairs = [knn[f"care-seed-{seed}"] - knn[f"c-stream-seed-{seed}"] for seed in (0, 1)]
    assert lead["points"] == pytest.approx(sum(pairs) / 2)
    assert lead["low"] < lead["points"] < lead["high"]
    assert lead["seeds"] == 2
    assert {pair["arm"] for pair in content["differences"]} == {"care", "chance"}


@pytest.mark.flows
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
    listed = run("--list-arms")[1]
    assert "tap-layer2" in listed
    assert "objectives" in listed


@pytest.mark.parametrize("sets", [False, True])
def test_the_command_takes_folders_of_images_and_of_shards(
    photos: Path,
    tmp_path: Path,
    monkeypatch,
    sets: bool,
) -> None:
    images = photos
    if sets:
        images = tmp_path / "sets"
        for part in ("train", "val"):
            shards.build(photos / part, images / part)
    started = []

    def run_flow(flow, **settings) -> None:
        started.append(settings["images"])
        raise Failure("far enough")

    monkeypatch.setattr("flows.cli.reproduce.run_flow", run_flow)
    for wanted in (images, tmp_path / "nowhere"):
        words = ["care", "reproduce", "--images", str(wanted), "--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit):
            main()
    assert started == [str(images)]


@pytest.mark.flows
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_in_the_middle_it_ends_with_the_same_table(
    finished,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    command = ("reproduce", "--plain", "--out", tmp_path, *options(GRID))
    process = care(*command, env=environment())
    until(lambda: [*tmp_path.glob("results/*.json")] or process.poll(), 300, "a finished run")
    assert process.poll() is None, process.communicate()[0]
    os.kill(process.pid, number)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 3}[number], output
    assert "Traceback" not in output
    stages_before = stage_times(tmp_path)
    again = care(*command, env=environment())
    output = again.communicate(timeout=600)[0]
    assert again.returncode == 0, output
    assert all(stage_times(tmp_path)[name] == time for name, time in stages_before.items())
    content = json.loads((tmp_path / "reproduce.json").read_text())
    assert without_times(content) == without_times(finished[1])


@pytest.mark.flows
def test_with_prefect_the_same_table(finished, tmp_path: Path) -> None:
    process = care("reproduce", "--out", tmp_path, *options(GRID), env=environment())
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    content = json.loads((tmp_path / "reproduce.json").read_text())
    assert without_times(content) == without_times(finished[1])


@pytest.mark.flows
def test_an_image_folder_and_its_shards_give_the_same_table(photos: Path, tmp_path: Path) -> None:
    grid = TINY | {"arms": ("c-stream", "care"), "seeds": (0,)}
    of_folder = care_reproduce.fn(out=str(tmp_path / "folder"), images=str(photos), **grid)
    for part in ("train", "val"):
        shards.build(photos / part, tmp_path / "photos-built" / part)
    built = str(tmp_path / "photos-built")
    of_shards = care_reproduce.fn(out=str(tmp_path / "shards"), images=built, **grid)
    assert of_folder["failed"] == of_shards["failed"] == []
    assert {figure["task"] for figure in of_folder["arms"]} == CLASSIFIED
    assert of_shards["arms"] == of_folder["arms"]


@pytest.mark.flows
def test_an_arm_of_every_kind_runs_to_its_end(tmp_path: Path) -> None:
    kinds = ("random", "c-stream", "care", "c-stream-equal-compute", "lambda-0", "blocks-2")
    kinds += ("position-sin-cos", "tap-layer2", "sequential", "detach", "released")
    kinds += ("objective-simsiam", "objective-moco-v2-alone", "objective-swav")
    grid = TINY | SCENES | {"arms": kinds, "seeds": (0,), "steps": 1}
    content = care_reproduce.fn(out=str(tmp_path), **grid)
    assert content["failed"] == []
    assert [run["run"] for run in content["runs"]] == [f"{kind}-seed-0" for kind in kinds]
    sequential = json.loads((tmp_path / "results" / "sequential-seed-0.json").read_text())
    random = json.loads((tmp_path / "results" / "random-seed-0.json").read_text())
    assert sequential["digests"]["encoder"] != random["digests"]["encoder"]
    assert {row["task"] for row in sequential["rows"]} == TASKS
