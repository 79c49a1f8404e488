"""`care pretrain` on a run that is there, and what it tells before the first step."""

import json
import sys
from pathlib import Path
import pytest
from PIL import Image
import shards
from care import lr_at
from flows.cli.pretrain_hints import say_next

SMALL = "--encoder resnet18-small-half --size 32 --hidden 16 --precision fp32 --batch-size 8"


@pytest.fixture
def pretrain(care, photos: Path, tmp_path: Path, monkeypatch):
    """Runs `care pretrain set run` with further options; gives code, output, errors."""
    monkeypatch.chdir(tmp_path)
    shards.build(photos, tmp_path / "set", workers=1)
    return lambda *options: care("pretrain", "set", "run", *SMALL.split(), *options)


def rows() -> list[dict[str, float]]:
    return [json.loads(line) for line in Path("run/losses.jsonl").read_text().splitlines()]


def status() -> dict[str, str]:
    return json.loads(Path("run/status.json").read_text())


def test_a_finished_run_is_made_longer_by_its_epochs_alone_and_all_else_is_refused(
    pretrain,
) -> None:
    assert pretrain("--epochs", 1)[0] == 0
    code, _, error = pretrain("--epochs", 1, "--lr", 1, "--seed", 3)
    assert code == 1
    assert "--lr 0.05, --seed 0; this call has --lr 1.0, --seed 3; repeat" in error
    assert "--allow-change lr --allow-change seed" in error
    assert status() == {"state": "done", "message": ""}
    code, out, error = pretrain("--epochs", 2)
    assert code == 0
    assert out.startswith("6 steps done")
    assert "3 steps become 6: after 3 of them the learning rate goes from" in error
    rates = [row["lr"] for row in rows()]
    assert rates[3:] == [lr_at(n, total=6, base=0.05 * 8 / 256, warmup=0) for n in range(3, 6)]
    assert pretrain("--epochs", 2)[0] == 0  # the same command again
    code, _, error = pretrain("--epochs", 1)
    assert code == 1
    assert "--epochs for 6 steps; this call has --epochs for 3 steps" in error
    assert len(rows()) == 6


def test_the_page_of_a_run_has_its_command_and_what_was_left_out(pretrain, care, photos) -> None:
    (photos / "notes.txt").write_text("no image")
    assert care("shards", "build", photos, "other", "--workers", 1)[0] == 0
    assert care("pretrain", "other", "run", *SMALL.split(), "--epochs", 1)[0] == 0
    assert care("pretrain", "other", "run", *SMALL.split(), "--epochs", 2)[0] == 0
    assert care("report", "run")[0] == 0
    page = Path("run/report.html").read_text()
    command = f"care pretrain other RUN {SMALL} --epochs 1"
    longer = f"care pretrain other RUN {SMALL} --epochs 2"
    assert json.loads(Path("run/command.json").read_text()) == {"commands": [command, longer]}
    assert f"{command}\n{longer}" in page
    assert "the last command goes on" in page
    assert "1 other file: notes.txt" in page


def test_what_comes_next_names_the_set_beside_that_is_to_be_judged_on(tmp_path, capsys) -> None:
    def words(path: str) -> str:
        say_next("run", path, is_labelled=True)
        return capsys.readouterr().err.replace("\n", " ")

    for part in ("train", "val"):
        (tmp_path / part).mkdir()
    train = str(tmp_path / "train")
    assert f"--train {train} --val SET" in words(train)
    (tmp_path / "val" / "index.json").touch()
    assert f"--train {train} --val {tmp_path}/val" in words(train)
    assert "--val SET" in words(str(tmp_path / "val"))


@pytest.mark.parametrize("word", ["nonsense", "stepz", "nproc"])
def test_a_change_of_what_is_no_setting_is_a_usage_error(pretrain, word) -> None:
    code, _, error = pretrain("--allow-change", word)
    assert code == 2
    assert f"got '{word}'; there are set, encoder, init, size, batch-size, epochs" in error
    assert not Path("run").exists()


def test_a_small_set_is_told_and_a_single_step_is_one(pretrain) -> None:
    code, out, error = pretrain("--epochs", 1, "--batch-size", 24)
    assert code == 0
    assert out.startswith("1 step done, encoder: run/")
    assert "24 images are few to learn from without labels" in error
    assert "--init supervised:ENCODER" in error


def test_a_gpu_that_is_not_there_is_told_in_a_line(pretrain, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, _, error = pretrain("--device", "cuda")
    assert code == 1
    assert "error: wanted the device cuda, got none that torch" in error
    assert not Path("run").exists()


def unlabelled(folder: Path) -> None:
    Image.effect_noise((40, 40), 20).convert("RGB").save(folder / "1.png")


def of_another_class(folder: Path) -> None:
    (folder / "zebra").mkdir()
    unlabelled(folder / "zebra")
    (folder / "a").mkdir()
    unlabelled(folder / "a")


@pytest.mark.parametrize(
    ("fill", "says"),
    [(unlabelled, "has no image with a class"), (of_another_class, "does not have: zebra")],
)
def test_a_probe_that_cannot_work_is_told_before_the_first_step(
    pretrain, tmp_path: Path, fill, says
) -> None:
    (tmp_path / "more").mkdir()
    fill(tmp_path / "more")
    shards.build(tmp_path / "more", tmp_path / "val", workers=1)
    code, _, error = pretrain("--knn-every", 1, "--knn-val", "val")
    assert code == 1
    assert says in error
    assert not Path("run").exists()


def test_verdicts_without_labels_are_made_on_the_way_and_are_those_of_the_evaluation(
    pretrain, care
) -> None:
    assert pretrain("--epochs", 2, "--probe", 1)[0] == 0
    measures = ("agreement", "rankme", "lidar", "alignment", "uniformity")
    assert [set(measures) <= {*row} for row in rows()] == [False, False, True] * 2
    code, out, _ = care("evaluate", "quality", "run", "--val", "set", "--out", "judged", "--json")
    assert code == 0
    (row,) = json.loads(out)
    for name in measures:
        # the trained network computes in another memory format than the one that is loaded
        assert row[name] == pytest.approx(rows()[-1][name], rel=5e-3, abs=2e-3), name


def test_event_files_that_cannot_be_written_are_told_before_the_first_step(
    pretrain, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    code, _, error = pretrain("--tensorboard", "--nproc", 2)
    assert code == 1
    assert "pip install 'care-ssl[tensorboard]', or leave --tensorboard out" in error
    assert not Path("run").exists()


def test_processes_are_not_started_for_what_cannot_work(pretrain, monkeypatch) -> None:
    monkeypatch.setattr("flows.cli.pretrain.torchrun", None)
    code, _, error = pretrain("--nproc", 2, "--encoder", "resnet51")
    assert (code, "no encoder is called 'resnet51'" in error) == (1, True)
    code, _, error = pretrain("--nproc", 2, "--init", "nowhere.pth")
    assert (code, "nowhere.pth does not exist" in error) == (1, True)


def recorded() -> dict:
    """The settings in the run's newest checkpoint."""
    manifest = sorted(Path("run/checkpoints").glob("*/manifest.json"))[-1]
    return json.loads(manifest.read_text())["settings"]


def test_an_objective_is_trained_by_its_recipe_which_is_said_and_recorded(pretrain) -> None:
    code, _, error = pretrain("--epochs", 1, "--objective", "moco-v2", "--no-t-stream")
    assert code == 0
    said = "by the recipe of MoCo v2: sgd, lr 0.03 for 256 images, weight decay 0.0001, target's"
    assert f"{said} momentum 0.999, which stays, its views" in error
    settings = recorded()
    assert (settings["lr"], settings["momentum"], settings["warmup"]) == (0.03, 0.999, 0)
    assert (settings["momentum_rises"], settings["t_stream"]) == (False, None)
    assert settings["objective"].startswith("MoCoV2(hidden=16, dim=128")
    assert settings["views"][0][0] == settings["views"][1][0] == [0.2, 1]
    # the same command goes on; another objective is another run
    assert pretrain("--epochs", 1, "--objective", "moco-v2", "--no-t-stream")[0] == 0
    code, _, error = pretrain("--epochs", 1)
    assert code == 1
    assert "--objective MoCoV2(" in error


def test_what_is_asked_for_replaces_what_a_recipe_says(pretrain) -> None:
    options = "--objective simsiam --optimizer lars --lr 1 --momentum-rises --warmup-epochs 1"
    code, _, error = pretrain("--epochs", 1, *options.split())
    assert code == 0
    line = "by the recipe of SimSiam: weight decay 1e-06, target's momentum 0.99, its views"
    assert line in error
    settings = recorded()
    assert (settings["lr"], settings["weight_decay"], settings["warmup"]) == (1, 1e-6, 3)
    assert settings["optimizer"].startswith("lars schedule=Schedule(")
    assert "c.predictor" in settings["optimizer"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--objective mocco", "wanted an objective of byol, simsiam, simclr, moco-v1"),
        ("--objective moco-v2 --queue 24", "does not hold whole batches of 16; wanted a queue of"),
        ("--queue 24", "wanted a queue for an objective that keeps one, moco-v1, moco-v2, infomin"),
        ("--objective byol --small-crops 2", "small crops are swav's, byol does not learn"),
        ("--objective cmc", "wanted an encoder such as lab:resnet50"),
        ("--objective byol-vit --encoder vit-tiny8", "vit-tiny8 has no T-stream"),
        ("--optimizer adam", "adam"),
    ],
)
def test_methods_that_cannot_be_are_usage_errors(pretrain, options, says) -> None:
    code, _, error = pretrain(*options.split())
    assert code == 2
    assert says in " ".join(error.split())
    assert "Traceback" not in error
    assert not Path("run").exists()
