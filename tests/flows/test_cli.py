import json
import statistics
import sys
from pathlib import Path
import numpy as np
import pytest
from PIL import Image
from flows.cli import main
from shards import scenes

SMALL = "--encoder resnet18-small-half --size 32 --batch-size 8 --hidden 16 --precision fp32"
QUICK = "--size 32 --epochs 1 --batch-size 4 --lrs 0.1 --head-lrs 1"
RANDOM = "random:resnet18-small-half"


@pytest.fixture
def shard_set(care, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a set, below the working directory."""
    monkeypatch.chdir(tmp_path)
    code, _, error = care("shards", "build", photos, "set")
    assert code == 0, error
    return tmp_path / "set"


def evaluate(verb: str, *encoders: object) -> list[object]:
    """A command that judges encoders on a set."""
    sets = ["--train", "set", "--val", "set", "--out", "judged"]
    return ["evaluate", verb, *encoders, *sets]


def test_a_set_is_built_described_and_verified(care, photos: Path, tmp_path: Path) -> None:
    code, out, error = care("shards", "build", photos, tmp_path / "set", "--json")
    assert code == 0
    assert "care pretrain" not in error
    assert json.loads(out)["kept"] == 24
    assert json.loads(out)["classes"] == {"a": 12, "b": 12}
    code, out, _ = care("shards", "info", tmp_path / "set")
    assert code == 0
    assert "24" in out
    assert "intact" in care("shards", "verify", tmp_path / "set")[1]
    # what comes next is said
    sets = tmp_path / "sets"
    code, _, error = care("shards", "build", photos, sets, "--val-share", 0.3)
    assert f"pre-train on it: care pretrain {sets}/train runs/NAME" in error
    assert f"care evaluate knn runs/NAME --train {sets}/train --val {sets}/val" in error


def test_what_was_made_of_pixels_is_said_in_words(care, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        values = np.linspace(0, 4000 + number, 64 * 64, dtype=np.uint16).reshape(64, 64)
        Image.fromarray(values).save(tmp_path / "photos" / f"{number}.png")
    code, out, error = care("shards", "build", tmp_path / "photos", tmp_path / "set")
    assert code == 0, error
    assert "converted by the rule: 3" in out
    assert "integers that become black, white: 0, 4,095" in out
    facts = json.loads(care("shards", "info", tmp_path / "set", "--json")[1])
    assert facts["pixels"]["integers"] == [0, 4095]


def test_annotated_parts_become_sets_whose_boxes_are_counted_by_class(
    care, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for part in ("train", "valid"):
        scenes.write(tmp_path / "boxed" / part, count=4)
    code, out, error = care("shards", "build", "boxed", "sets")
    assert code == 0, error
    detect = "care evaluate detect runs/NAME --train sets/train --val sets/valid"
    assert detect in error
    assert "care evaluate knn" not in error
    assert "without class" not in out
    facts = json.loads(care("shards", "info", "sets/train", "--json")[1])
    assert sum(facts["boxes by class"].values()) == facts["boxes"]["counted"] > 0
    sets = ["--train", "sets", "--val", "sets"]
    code, _, error = care("evaluate", "detect", "random:resnet18-small-half", *sets)
    assert code == 1
    assert "name one of its folders: sets/train, sets/valid" in error


def test_pretraining_to_kneighbours_and_report(care, shard_set: Path) -> None:
    code, out, error = care("pretrain", "set", "run", *SMALL.split(), "--epochs", 2)
    assert code == 0, error
    assert "6 steps done" in out
    assert "judge it: care evaluate knn run --train set --val SET" in error
    code, out, error = care(*evaluate("knn", "run", RANDOM), "--size", 32, "--json")
    rows = json.loads(out)
    assert "train and val are both set" in error
    assert [row["encoder"] for row in rows] == ["run", RANDOM]
    assert all(0 <= row["top1"] <= 100 and "top5" not in row for row in rows)
    assert rows[0]["digests"]["encoder"] != rows[1]["digests"]["encoder"]
    assert rows[0]["digests"]["train"] == rows[1]["digests"]["val"]
    assert rows[0]["settings"]["size"] == 32
    code, out, _ = care("report", "run", "--evaluations", "judged", "--json")
    assert code == 0
    page = Path(json.loads(out)["report"]).read_text()
    assert page.startswith("<!doctype html>")
    # its results beside those judged alike, and its settings
    assert "<td>run</td>" in page
    assert f"<td>{RANDOM}</td>" in page
    for text in ("resnet18-small-half", "views of 32 px", "6 steps of 8 images", "24 of "):
        assert text in page
    assert "run/encoder.safetensors" in page
    assert "torch " in page
    # a folder that was named must have results of it
    code, _, error = care("report", "run", "--evaluations", "typo")
    assert code == 1
    assert "typo does not exist" in error


def test_encoders_are_judged_without_labels_on_one_set(care, shard_set: Path) -> None:
    command = ["evaluate", "quality", RANDOM, "--val", "set", "--out", "judged", "--size", 32]
    code, out, error = care(*command, "--k", 3, "--json")
    assert code == 0, error
    (row,) = json.loads(out)
    assert {"agreement", "rankme", "lidar", "alignment", "uniformity"} <= {*row}
    assert row["digests"].keys() == {"encoder", "val"}
    assert 0 < row["agreement"] < 100
    assert 1 < row["rankme"] < 24
    code, out, _ = care(*command, "--k", 3)
    assert "label-free quality" in out
    assert "RankMe" in out
    assert care(*command, "--train", "set")[0] == 2


def test_hours_on_a_cpu_are_told_before_they_begin(care, shard_set: Path, monkeypatch) -> None:
    from flows.cli import pretrain_hints as command

    monkeypatch.setattr(command, "is_worth_a_forecast", lambda *_, **__: True)
    monkeypatch.setattr(command, "forecast_seconds", lambda *_, **__: 31 * 3600.0)
    small = "--encoder resnet18-small-half --size 32 --hidden 16 --epochs 1 --precision fp32"
    code, out, error = care("pretrain", "set", "run", *small.split(), "--json")
    assert code == 0, error
    assert "4 images a step, for a set of 24 (the paper's are 1024)" in error
    assert "about 31 hours on this CPU: resnet18-small-half at 32 px, 6 steps" in error
    assert error.index("31 hours") < error.index("pre-training: ")
    assert json.loads(out)["encoder"] == "run/encoder.safetensors"
    assert json.loads(out)["steps"] == 6
    # a run that goes on has been told
    assert "hours" not in care("pretrain", "set", "run", *small.split())[2]


def test_hours_of_patches_are_foretold_by_patches(tmp_path: Path, monkeypatch, capsys) -> None:
    from care import PIRL, c_stream_for
    from care.train import forecast
    from care.train.recipes import RECIPES, recipe_views
    from flows.cli import pretrain_hints

    c = c_stream_for("resnet18-small-half", objective=PIRL(hidden=16, images=3))
    views = recipe_views(RECIPES["pirl"], size=32, t_stream=False)
    settings = {"batch_size": 2, "size": 32, "device": "cpu", "precision": "fp32", "views": views}
    monkeypatch.setattr(pretrain_hints, "is_worth_a_forecast", lambda *_, **__: True)
    ticks = iter(range(0, 36_000, 7_200))
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: float(next(ticks)))
    run = str(tmp_path / "run")
    pretrain_hints.warn_of_hours(run, (c, None), settings, encoder="resnet18", steps=2)
    assert "about 4 hours on this CPU: resnet18 at 32 px, 2 steps" in capsys.readouterr().err


def test_a_linear_layer_on_crops_and_on_features(care, shard_set: Path) -> None:
    command = [*evaluate("linear", RANDOM), "--size", 32]
    code, out, _ = care(*command, "--epochs", 2)
    assert code == 0
    assert "best epoch" in out
    code, out, _ = care(*command, "--fast", "--lrs", "0.1,1")
    assert code == 0
    assert "linear on cached features" in out


def test_few_labels_are_judged_by_several_seeds(care, shard_set: Path) -> None:
    quick = [
        "--size",
        "32",
        "--epochs",
        "1",
        "--batch-size",
        "4",
        "--lrs",
        "0.1",
        "--head-lrs",
        "1",
    ]
    command = [*evaluate("finetune", RANDOM), *quick]
    code, out, _ = care(*command, "--fraction", 0.5, "--json")
    assert code == 0
    (row,) = json.loads(out)
    assert row["task"] == "50 % of the labels"
    assert row["trials"] == 3
    trials = [
        json.loads(path.read_text())
        for path in Path("judged").glob("stages/finetune-*/seed-*/result.json")
    ]
    scores = [trial["measures"]["top1"] for trial in trials]
    assert len(scores) == 3
    assert row["top1"] == pytest.approx(statistics.fmean(scores), abs=1e-3)
    assert row["top1_std"] == pytest.approx(statistics.stdev(scores), abs=1e-3)
    draws = zip(*(trial["resampled"] for trial in trials), strict=True)
    means = [statistics.fmean(figures) for figures in draws]
    assert row["resampled"] == pytest.approx(means, abs=1e-3)

    Path("names.txt").write_text("".join(f"{number}.png\n" for number in (*range(12), 99)))
    code, _, error = care(*command, "--trials", 1, "--list", "names.txt")
    assert code == 0
    assert "1 names of" in error
    assert "99.png" in error


def test_results_stand_beside_the_paper_s_in_tables_and_files(care, shard_set: Path) -> None:
    assert care(*evaluate("linear", RANDOM), "--size", 32, "--epochs", 1)[0] == 0
    code, out, _ = care("results", "judged", "--csv", "all.csv", "--markdown", "all.md")
    assert code == 0
    assert "reported by the paper" in out
    assert len(Path("all.csv").read_text().splitlines()) > 6
    assert "| linear" in Path("all.md").read_text()


DETECTOR = (
    "--head fpn --size 32 --batch-size 4 --channels 8 --hidden 16 --proposals 16"
    " --precision fp32 --seed 1"
)


def test_measures_without_labels_are_compared_with_scores_over_checkpoints(
    care, tmp_path: Path
) -> None:
    rows = []
    for number, (top1, rank) in enumerate([(10.0, 5.0), (30.0, 6.0), (20.0, 7.0)]):
        row = {"encoder": f"step-{number}", "digests": {"encoder": str(number)}}
        rows.append(row | {"task": "kNN", "top1": top1})
        rows.append(row | {"task": "label-free quality", "rankme": rank, "lidar": 2.0})
    (tmp_path / "judged").mkdir()
    (tmp_path / "judged" / "results.json").write_text(json.dumps({"evaluations": rows}))
    code, out, _ = care("results", tmp_path / "judged", "--ranks")
    assert code == 0
    assert "3 encoders" in out
    assert "+0.33" in out
    code, out, _ = care("results", tmp_path / "judged", "--ranks", "--json")
    taus = {row["measure"]: row["kendall"] for row in json.loads(out)}
    assert taus == {"rankme": pytest.approx(1 / 3), "lidar": None}


def test_detection_from_annotations_to_results(care, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    scenes.write("train", count=16, size=40)
    scenes.write("val", count=8, start=16, size=40)
    annotations = Path("train", "annotations.json")
    content = json.loads(annotations.read_text())
    # with a mask it would have the box of that
    content["annotations"][0] |= {"bbox": [5, 5, 0, 0], "segmentation": []}
    annotations.write_text(json.dumps(content))
    detect = f"evaluate detect {RANDOM} --train train --val val {DETECTOR}".split()
    code, out, error = care(*detect, "--iterations", 3, "--json")
    assert code == 0, error
    assert "1 left out, box without area" in error
    (row,) = json.loads(out)
    assert 0 <= row["ap"] <= row["ap50"] <= 100
    stages = Path("evaluations", "stages")
    (run,) = stages.glob("detect-random-resnet18-small-half-????????")
    assert json.loads((run / "results.json").read_text())["evaluations"] == [row]
    losses = (run / "seed-1" / "losses.jsonl").read_bytes()
    # done: continues with nothing to do
    assert json.loads(care(*detect, "--iterations", 3, "--json")[1]) == [row]
    assert (run / "seed-1" / "losses.jsonl").read_bytes() == losses
    assert care("report", run / "seed-1")[0] == 0
    # other settings are another run
    assert care(*detect, "--iterations", 4)[0] == 0
    assert len(list(stages.glob("detect-*-????????"))) == 2


@pytest.mark.parametrize("program", [["care", "pretrain"], ["care.train"]])
def test_processes_get_the_arguments_as_they_were_typed(
    shard_set: Path, monkeypatch, program
) -> None:
    from flows.cli import pretrain as command

    started = []

    def start(run: str, nproc: int, arguments: list[str], *, module: str) -> None:
        started.append((run, nproc, arguments, module))

    typed = ["set", "run", *SMALL.split(), "--epochs", "2", "--nproc", "2"]
    monkeypatch.setattr(command, "torchrun", start)
    monkeypatch.setattr(sys, "argv", [*program, *typed])
    with pytest.raises(SystemExit) as stop:
        main() if program[1:] else command.main()
    assert not stop.value.code
    assert started == [("run", 2, typed, "flows.cli.pretrain")]


def test_torchrun_s_door_is_the_command(monkeypatch, capsys) -> None:
    import runpy

    monkeypatch.setattr(sys, "argv", ["care.train", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("care.train", run_name="__main__")
    assert not stop.value.code
    assert "python -m care.train" in capsys.readouterr().out
