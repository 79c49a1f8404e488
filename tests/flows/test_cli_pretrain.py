"""`care pretrain` on a run that is there, and what it tells before the first step."""

import json
from pathlib import Path
import pytest
from PIL import Image
import shards
from care import lr_at

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


@pytest.mark.parametrize("word", ["nonsense", "stepz", "nproc"])
def test_a_change_of_what_is_no_setting_is_a_usage_error(pretrain, word) -> None:
    code, _, error = pretrain("--allow-change", word)
    assert code == 2
    assert f"got '{word}'; there are set, encoder, init, size, batch-size, epochs" in error
    assert not Path("run").exists()


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


def test_processes_are_not_started_for_what_cannot_work(pretrain, monkeypatch) -> None:
    monkeypatch.setattr("flows.cli.pretrain.torchrun", None)
    code, _, error = pretrain("--nproc", 2, "--encoder", "resnet51")
    assert (code, "no encoder is called 'resnet51'" in error) == (1, True)
    code, _, error = pretrain("--nproc", 2, "--init", "nowhere.pth")
    assert (code, "nowhere.pth does not exist" in error) == (1, True)
