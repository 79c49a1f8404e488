"""`care pipeline plan` and `status`: what files say, without a run."""

import json
import re
from pathlib import Path
import pytest
from flows import graph, records
from flows.experiment import Experiment, Images

SCENES = "--train-scenes 32 --val-scenes 16 --labels 0.5"


@pytest.fixture
def plan(care, tmp_path: Path, monkeypatch):
    """What `care pipeline plan` says, as JSON, by the names of the stages."""
    monkeypatch.chdir(tmp_path)

    def run(options: str) -> dict[str, dict[str, str]]:
        code, out, error = care("pipeline", "plan", "--out", "lab", "--json", *options.split())
        assert code == 0, error
        return {row["stage"]: row for row in json.loads(out)}

    return run


def without_keys(stages) -> list[str]:
    """Names of stages, without what is known of their keys."""
    return [re.sub("-[0-9a-f]{8}$", "", name) for name in stages]


def test_a_plan_of_nothing_that_is_there_runs_everything(plan) -> None:
    stages = plan(SCENES)
    assert {row["state"] for row in stages.values()} == {"to run"}
    names = without_keys(stages)
    assert names[:2] == ["train", "val"]
    assert names[-1] == "report"
    assert {"pretrain", "pretrain-c-stream", "finetune-0.5", "coco", "attention"} <= {*names}
    assert stages["pretrain"]["why"] == "after train"
    # nothing is written
    assert not Path("lab").exists()


def test_a_plan_says_what_is_left_out_and_why(plan, photos: Path) -> None:
    flat = photos.parent / "flat"
    photos.joinpath("a").rename(flat)
    stages = plan(f"--images {flat}")
    lost = {name: row["why"] for name, row in stages.items() if row["state"] == "left out"}
    assert lost == {
        "kNN, linear and few-label evaluation": "the images have no labels (no class folders)",
        "detection and attention": "the images have no boxes",
    }
    assert without_keys(stages)[:2] == ["train", "pretrain"]


def test_what_is_built_is_cached_and_tells_what_is_too_few(plan, photos: Path) -> None:
    options = f"--images {photos} --labels 0.1,0.5"
    assert "finetune-0.1" in plan(options)
    for stage in graph.data_stages(Experiment(out="lab", images=Images(str(photos)))):
        records.finish(records.key_stage("lab", stage.name, stage.work, stage.inputs))
    stages = plan(options)
    states = dict(zip(without_keys(stages), stages.values(), strict=True))
    assert states["train"]["state"] == "cached"
    assert "files kept" in states["train"]["why"]
    assert states["pretrain"]["why"] == "nothing equal is finished"
    assert "finetune-0.1" not in states
    assert "too few" in states["10 % of the labels"]["why"]
    # another share of the data is nothing equal
    assert plan(f"{options} --seed 1").keys().isdisjoint({"train", "val"})


def test_a_plan_is_a_table_too(care, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    code, out, error = care("pipeline", "plan", *SCENES.split())
    assert code == 0
    assert "plan of demo" in out
    assert "nothing equal is finished" in out
    assert "to run; do it with care pipeline run" in error


def test_refresh_of_no_stage_is_a_usage_error(care) -> None:
    code, _, error = care("pipeline", "plan", "--refresh", "shards")
    assert code == 2
    assert "got shards" in error


def test_status_tells_what_is_finished(care, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "lab"
    (stage, *_) = graph.data_stages(Experiment(out=str(out), images=Images(str(photos))))
    records.finish(records.key_stage(str(out), stage.name, stage.work, stage.inputs))
    code, text, _ = care("pipeline", "status", out, "--json")
    assert code == 0
    (row,) = json.loads(text)
    assert row["state"] == "finished"
    assert row["stage"].startswith("train-")


def test_on_a_narrow_terminal_names_of_stages_are_broken_at_hyphens(
    care, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    code, out, error = care("pipeline", "plan", *SCENES.split())
    assert code == 0, error
    assert max(map(len, out.splitlines())) <= 80
    cells = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    assert "initialisation" in cells
    assert any(cell.startswith("finetune-0.5-random-") for cell in cells)


def test_how_the_images_are_read_is_no_line_of_the_plan_but_told(
    care, photos: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inside = tmp_path / "food" / "images"
    inside.parent.mkdir()
    photos.rename(inside)
    code, out, error = care("pipeline", "plan", "--images", "food", "--json")
    assert code == 0, error
    assert "food: the folder images/ is no class, those in it are" in error
    assert "no class" not in out
