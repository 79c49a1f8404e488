import html
import json
import multiprocessing
from pathlib import Path

import pytest
from PIL import Image

from care import CareError
from flows.pipeline import care_pipeline, splits
from flows.server import server
from shards import ShardError, scenes

TINY = {
    "steps": 3, "batch_size": 8, "hidden": 16, "size": 32, "train_scenes": 32, "val_scenes": 16, "checkpoint_every": 2,
    "labels": (0.5,), "finetune_steps": 2, "detection_size": 32, "detection_iterations": 2,
}  # fmt: skip
NAMES = ["random initialisation", "C-stream alone", "CARE"]


@pytest.fixture(scope="module", autouse=True)
def prefect_server():
    with server() as address:
        yield address


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((40, 40), 50).convert("RGB").save(path)


def stage_times(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "stages").iterdir()}


def test_the_whole_chain_and_a_second_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    results = care_pipeline(str(out), **TINY)
    assert json.loads((out / "results.json").read_text()) == results
    judged = [(row["task"], row["encoder"]) for row in results["evaluations"]]
    assert len(judged) == len(set(judged))
    assert set(judged) == {(task, name) for task in ("kNN", "linear on cached features", "attention inside objects") for name in NAMES} | {
        (task, name) for task in ("50 % of the labels", "detection") for name in ("random initialisation", "CARE")
    }
    inside = {row["encoder"]: row["inside"] for row in results["evaluations"] if "inside" in row}
    assert len(set(inside.values())) == 3
    assert all(0 < share < 100 for share in inside.values())
    assert "procedural" in results["title"]
    assert len((out / "losses.jsonl").read_text().splitlines()) == TINY["steps"]
    page = (out / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "procedural" in page
    for row in results["evaluations"]:
        assert row["protocol"].split("; ")[0] in html.unescape(page)

    before = stage_times(out)
    assert care_pipeline(str(out), **TINY) == results
    assert stage_times(out) == before

    (out / "encoder.safetensors").unlink()  # a lost output is made again, from the last checkpoint
    digest = json.loads((out / "stages" / "pretrain-CARE.json").read_text())["result"]
    assert care_pipeline(str(out), **TINY) == results
    assert json.loads((out / "stages" / "pretrain-CARE.json").read_text())["result"] == digest


def test_a_changed_evaluation_runs_again_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "run"
    care_pipeline(str(out), **TINY)
    before = stage_times(out)
    care_pipeline(str(out), **TINY | {"finetune_steps": 3})
    again = {name for name, time in stage_times(out).items() if time != before[name]}
    assert again == {"finetune-random initialisation-0.5.json", "finetune-CARE-0.5.json", "report.json"}


def test_own_images_and_own_boxes(tmp_path: Path) -> None:
    for part, start in (("train", 0), ("val", 24)):
        scenes.write(tmp_path / part, count=24, start=start, size=40)
    content = json.loads((tmp_path / "train" / "annotations.json").read_text())
    content["annotations"][0]["bbox"] = [5, 5, 0, 0]
    (tmp_path / "train" / "annotations.json").write_text(json.dumps(content))
    data = (str(tmp_path / "train"), str(tmp_path / "val"))
    results = care_pipeline(str(tmp_path / "run"), str(tmp_path / "train" / "images"), detection=data, **TINY)
    assert results["skipped"] == []
    assert {row["task"] for row in results["evaluations"]} == {"kNN", "linear on cached features", "50 % of the labels", "detection"}
    assert "1 left out of annotations.json: box without area" in results["evaluations"][-1]["protocol"]


def test_too_few_labels_skip_aloud_and_bad_boxes_are_told_before_training(tmp_path: Path) -> None:
    for n in range(20):
        image(tmp_path / "photos" / "ab"[n % 2] / f"{n}.png")
    photos = str(tmp_path / "photos")
    results = care_pipeline(str(tmp_path / "run"), photos, **TINY | {"labels": (0.01, 0.5)})
    assert results["skipped"][-1] == "1 % of the labels: that is 2 images, too few to hold one out"
    assert {row["task"] for row in results["evaluations"]} == {"kNN", "linear on cached features", "50 % of the labels"}
    with pytest.raises(ShardError, match="wanted a COCO JSON"):
        care_pipeline(str(tmp_path / "other"), photos, detection=(photos, photos), **TINY)
    assert not (tmp_path / "other" / "checkpoints").exists()


def test_own_images_without_labels_skip_aloud(tmp_path: Path) -> None:
    for n in range(12):
        image(tmp_path / "photos" / f"{n}.png")
    results = care_pipeline(str(tmp_path / "run"), str(tmp_path / "photos"), **TINY)
    assert results["evaluations"] == []
    assert "no labels" in results["skipped"][0]
    assert "no boxes" in results["skipped"][1]
    assert "photos" in results["title"]
    assert "no labels" in (tmp_path / "run" / "report.html").read_text()


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="nothing of that name"):
        care_pipeline(str(tmp_path / "run"), str(tmp_path / "nowhere"), **TINY)


def test_splits_of_every_layout(tmp_path: Path) -> None:
    for name in (
        "a/x/1.png",
        "a/y/2.png",
        "b/train/x/1.png",
        "b/val/x/2.png",
        "b/test/x/3.png",
        "c/1.png",
        "d/train/x/1.png",
        "d/train/y/1.png",
    ):
        image(tmp_path / name)
    a, b, c, d = (str(tmp_path / name) for name in "abcd")
    assert splits(a) == ({"train": (a, (0, 0.8)), "val": (a, (0.8, 1))}, [])
    parts, skipped = splits(b)
    assert parts == {"train": (f"{b}/train", (0, 1)), "val": (f"{b}/val", (0, 1))}
    assert skipped == ["the folder test: val is evaluated"]
    parts, skipped = splits(c)
    assert parts == {"train": (c, (0, 1))}
    assert "no labels" in skipped[0]
    assert splits(d) == ({"train": (f"{d}/train", (0, 0.8)), "val": (f"{d}/train", (0.8, 1))}, [])


def test_other_classes_in_val_are_told_before_training(tmp_path: Path) -> None:
    for name in ("train/x/1.png", "train/y/2.png", "val/x/1.png", "val/z/2.png"):
        image(tmp_path / "photos" / name)
    with pytest.raises(CareError, match="only one of them has: y, z"):
        care_pipeline(str(tmp_path / "run"), str(tmp_path / "photos"), **TINY)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_processes_forked_after_a_flow_end_well(tmp_path: Path) -> None:
    care_pipeline(str(tmp_path / "run"), **TINY | {"labels": (), "detection_iterations": 1})
    child = multiprocessing.get_context("fork").Process(target=str)  # as a loader's worker is
    child.start()
    child.join()
    assert child.exitcode == 0
