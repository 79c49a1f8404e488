import html
import json
import shutil
import time
from pathlib import Path
import pytest
from commands import TINY
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
import shards
from care.evaluate.resampling import DETECTION_DRAWS, DRAWS
from flows import pieces
from flows.pipeline import care_pipeline
from flows.server import server
from flows.single import care_build
from flows.splits import split_images
from shards import ShardError, scenes
from shards.errors import Failure, Misuse, StoreError

NAMES = ["random initialisation", "C-stream alone", "CARE"]


@pytest.fixture(scope="module", autouse=True)
def prefect_server():
    with server() as address:
        assert address
        yield address


@pytest.fixture(scope="module")
def finished(prefect_server, tmp_path_factory):
    """A run of the whole chain under Prefect; never changed: tests copy it."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return out, care_pipeline(out=str(out), **TINY)


@pytest.fixture
def out(finished, tmp_path):
    return Path(shutil.copytree(finished[0], tmp_path / "run", symlinks=True))


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((40, 40), 50).convert("RGB").save(path)


def stage_times(out: Path) -> dict[str, int]:
    """When the record of each name's current stage was written."""
    links = [path for path in out.iterdir() if path.is_symlink()]
    return {path.name: (out / f"{path.readlink()}.json").stat().st_mtime_ns for path in links}


def test_the_whole_chain(finished) -> None:
    out, results = finished
    assert json.loads((out / "results.json").read_text()) == results
    judged = [(row["task"], row["encoder"]) for row in results["evaluations"]]
    assert len(judged) == len(set(judged))
    assert set(judged) == {
        (task, name)
        for task in (
            "kNN",
            "linear on cached features",
            "label-free quality",
            "attention on objects",
        )
        for name in NAMES
    } | {
        (task, name)
        for task in ("50 % of the labels", "COCO FPN without masks", "segmentation, linear")
        for name in ("random initialisation", "CARE")
    }
    inside = {row["encoder"]: row["inside"] for row in results["evaluations"] if "inside" in row}
    assert len(set(inside.values())) == 3
    assert all(0 < share < 100 for share in inside.values())
    draws = {"COCO FPN without masks": DETECTION_DRAWS, "label-free quality": 0}
    for row in results["evaluations"]:
        assert len(row["resampled"]) == draws.get(row["task"], DRAWS)
    assert "procedural" in results["title"]
    assert len((out / "losses.jsonl").read_text().splitlines()) == TINY["steps"]
    assert results["verdict"].startswith("CARE ")
    assert (out / "results.md").read_text().startswith(results["verdict"])
    others = {difference["other"] for difference in results["differences"]}
    assert others == {"random initialisation", "C-stream alone", "chance"}
    page = (out / "report.html").read_text()
    assert page.index("Verdict") < page.index("Results")
    assert "data:image/" in page
    assert "procedural" in page
    for row in results["evaluations"]:
        assert row["protocol"].split("; ")[0] in html.unescape(page)
    assert (out / "encoder.safetensors").read_bytes() == (
        out / "pretrain" / "encoder.safetensors"
    ).read_bytes()
    assert len(shards.open(out / "train")) == TINY["train_scenes"]
    assert str(out) not in (out / "results.json").read_text()


@pytest.mark.flows
def test_without_prefect_the_same_bytes_and_prefect_sees_its_stages_as_cached(
    finished, tmp_path, monkeypatch
) -> None:
    other = tmp_path / "other"
    care_pipeline.fn(out=str(other), **TINY)
    for name in (
        "results.json",
        "results.md",
        "encoder.safetensors",
        "losses.jsonl",
        "maps.png",
        "maps.json",
        "segmentation.png",
        "report.html",
    ):
        assert (other / name).read_bytes() == (finished[0] / name).read_bytes()
    assert {path.name for path in (other / "stages").iterdir()} == {
        path.name for path in (finished[0] / "stages").iterdir()
    }
    before = stage_times(other)
    monkeypatch.chdir(other)
    with get_client(sync_client=True) as client:
        known = {run.id for run in client.read_flow_runs()}
        assert care_pipeline(out=".", **TINY) == finished[1]  # by another path
        (run,) = [run for run in client.read_flow_runs() if run.id not in known]
        wanted, deadline = FlowRunFilter(id={"any_": [run.id]}), time.monotonic() + 60
        while (
            len(tasks := client.read_task_runs(flow_run_filter=wanted)) < 28
            and time.monotonic() < deadline
        ):
            time.sleep(0.5)  # the server learns of them by events
        assert [one.state_name for one in tasks] == ["Cached"] * 28
        artifacts = {one.key: one for one in client.read_artifacts()}
    assert stage_times(other) == before
    assert '"kept"' in artifacts["train-files"].data
    assert "| kNN | CARE |" in artifacts["knn-results"].data
    assert artifacts["report-maps"].data.startswith("data:image/png;base64,")
    assert "report.html" in artifacts["report-page"].data


@pytest.mark.flows
def test_a_changed_evaluation_runs_again_and_nothing_else(out) -> None:
    before = stage_times(out)
    care_pipeline.fn(out=str(out), **TINY | {"finetune_steps": 4})
    again = {name for name, time in stage_times(out).items() if time != before[name]}
    assert again == {"finetune-0.5-random-initialisation", "finetune-0.5", "report"}
    care_pipeline.fn(out=str(out), **TINY)  # and back: all are there
    assert stage_times(out) == before


@pytest.mark.flows
def test_another_lambda_trains_and_evaluates_again_but_builds_no_shards(out) -> None:
    before = stage_times(out)
    care_pipeline(out=str(out), **TINY | {"attention_weight": 0})
    again = {name for name, time in stage_times(out).items() if time != before[name]}
    assert again == {
        "pretrain",
        "features",
        "knn",
        "linear",
        "finetune-0.5",
        "coco",
        "segment",
        "quality",
        "attention",
        "report",
    }


@pytest.mark.flows
def test_refresh_does_a_stage_again(out, monkeypatch) -> None:
    before = stage_times(out)
    assert care_pipeline(out=str(out), refresh=["knn", "pretrain"], **TINY)["evaluations"]
    again = {name for name, time in stage_times(out).items() if time != before[name]}
    assert again == {
        "knn",
        "knn-c-stream-alone",
        "knn-random-initialisation",
        "pretrain",
        "pretrain-c-stream",
    }
    before = stage_times(out)
    care_pipeline.fn(out=str(out), refresh=["coco"], **TINY)
    again = {name for name, time in stage_times(out).items() if time != before[name]}
    assert again == {"coco", "coco-random-initialisation"}  # and not its sets
    monkeypatch.setenv("CARE_PLAIN", f"1\n{out}/stages/{Path(out, 'coco').readlink().name}")
    before = stage_times(out)  # a run that starts itself again
    care_pipeline.fn(out=str(out), refresh=["coco"], **TINY)
    again = {name for name, time in stage_times(out).items() if time != before[name]}
    assert again == {"coco-random-initialisation"}
    with pytest.raises(Misuse, match="got shards"):
        care_pipeline(out=str(out), refresh=["shards"], **TINY)


@pytest.mark.flows
def test_lost_outputs_are_made_again(out, finished) -> None:
    lost = [
        "pretrain/encoder.safetensors",
        "val/index.json",
        "train/shard-000000.tar",
        "knn/results.json",
    ]
    for name in lost:
        (out / name).unlink()
    assert care_pipeline.fn(out=str(out), **TINY) == finished[1]
    for name in lost:
        assert (out / name).read_bytes() == (finished[0] / name).read_bytes()


@pytest.mark.flows
def test_pieces_that_fail_are_done_by_the_process_of_their_stage(
    tmp_path, monkeypatch, caplog
) -> None:
    did, written = pieces.do_piece, []

    def fail(work, out, inputs, number):
        if number == 0:
            raise StoreError("cannot write a piece")
        time.sleep(1)
        did(work, out, inputs, number)
        written.append(number)

    for n in range(8):
        image(tmp_path / "photos" / f"{n}.png")
    monkeypatch.setattr(pieces, "do_piece", fail)
    done = care_build(str(tmp_path / "run"), source=str(tmp_path / "photos"), shard_size=3)
    assert done["counts"] == {"seen": 8, "kept": 8}
    assert "on its own: cannot write a piece" in caplog.text
    assert sorted(written) == [1, 2]  # waited for, as the stage's own process would meet them


@pytest.mark.flows
def test_own_images_and_own_boxes(tmp_path: Path) -> None:
    for part, start in (("train", 0), ("val", 24)):
        scenes.write(tmp_path / part, count=24, start=start, size=40)
    content = json.loads((tmp_path / "train" / "annotations.json").read_text())
    content["annotations"][0] |= {"bbox": [5, 5, 0, 0], "segmentation": []}
    (tmp_path / "train" / "annotations.json").write_text(json.dumps(content))
    boxed = {"coco_train": str(tmp_path / "train"), "coco_val": str(tmp_path / "val")}
    results = care_pipeline(
        out=str(tmp_path / "run"), images=str(tmp_path / "train" / "images"), **boxed, **TINY
    )
    assert results["skipped"] == []
    protocols = {row["task"]: row["protocol"] for row in results["evaluations"]}
    assert {*protocols} == {
        "kNN",
        "linear on cached features",
        "65 % of the labels",
        "label-free quality",
        "COCO FPN without masks",
    }
    assert "1 left out of train: box without area" in protocols["COCO FPN without masks"]


@pytest.fixture
def photos(tmp_path: Path) -> str:
    """Class folders of noise."""
    for n in range(20):
        image(tmp_path / "photos" / "ab"[n % 2] / f"{n}.png")
    return str(tmp_path / "photos")


@pytest.mark.flows
def test_too_few_labels_skip_aloud(tmp_path: Path, photos: str) -> None:
    results = care_pipeline.fn(
        out=str(tmp_path / "run"), images=photos, **TINY | {"labels": (0.01, 0.5)}
    )
    assert results["skipped"][-1] == "1 % of the labels: that is 2 images, too few to hold one out"
    assert {row["task"] for row in results["evaluations"]} == {
        "kNN",
        "linear on cached features",
        "57.1 % of the labels",
        "label-free quality",
    }


@pytest.mark.usefixtures("forked_origin")
def test_bad_boxes_are_told_before_training(tmp_path: Path, photos: str) -> None:
    with pytest.raises(Failure, match="wanted a COCO JSON"):
        care_pipeline.fn(
            out=str(tmp_path / "other"), images=photos, coco_train=photos, coco_val=photos, **TINY
        )
    assert not [*(tmp_path / "other" / "stages").glob("pretrain-*")]
    with pytest.raises(Misuse, match="give both or none"):
        care_pipeline.fn(out=str(tmp_path / "other"), coco_train=photos, **TINY)


@pytest.mark.usefixtures("forked_origin")
def test_own_images_without_labels_skip_aloud(tmp_path: Path) -> None:
    for n in range(12):
        image(tmp_path / "photos" / f"{n}.png")
    results = care_pipeline.fn(out=str(tmp_path / "run"), images=str(tmp_path / "photos"), **TINY)
    # what reads no labels is there, and decides nothing
    assert {row["task"] for row in results["evaluations"]} == {"label-free quality"}
    assert (results["verdict"], results["differences"]) == ("", [])
    assert "no labels" in results["skipped"][0]
    assert "no boxes" in results["skipped"][1]
    assert "photos" in results["title"]
    assert "no labels" in (tmp_path / "run" / "report.html").read_text()


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="nothing of that name"):
        care_pipeline.fn(out=str(tmp_path / "run"), images=str(tmp_path / "nowhere"), **TINY)


def test_results_among_the_images_are_refused(tmp_path: Path) -> None:
    image(tmp_path / "photos" / "1.png")
    for out in ("photos", "photos/lab"):
        with pytest.raises(Misuse, match="wanted another folder for results"):
            care_pipeline.fn(out=str(tmp_path / out), images=str(tmp_path / "photos"), **TINY)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["1.png"]


def test_splits_of_every_layout(tmp_path: Path) -> None:
    for name in (
        "a/x/1.png",
        "a/y/2.png",
        "b/train/x/1.png",
        "b/train/y/1.png",
        "b/val/x/2.png",
        "b/test/x/3.png",
        "b/test/y/3.png",
        "c/1.png",
        "d/train/x/1.png",
        "d/train/y/2.png",
    ):
        image(tmp_path / name)
    a, b, c, d = (str(tmp_path / name) for name in "abcd")
    assert split_images(a)[:2] == (
        {"train": {"source": a, "share": [0, 0.8]}, "val": {"source": a, "share": [0.8, 1]}},
        [],
    )
    parts, skipped, *_ = split_images(b)
    assert parts == {"train": {"source": f"{b}/train"}, "val": {"source": f"{b}/val"}}
    assert skipped == ["the folder test: val is evaluated"]
    assert split_images(a, b)[:2] == ({"train": {"source": a}, "val": {"source": b}}, [])
    parts, skipped, *_ = split_images(c)
    assert parts == {"train": {"source": c}}
    assert "no labels" in skipped[0]
    half = f"{d}/train"
    assert split_images(d)[:2] == (
        {"train": {"source": half, "share": [0, 0.8]}, "val": {"source": half, "share": [0.8, 1]}},
        [],
    )


@pytest.mark.usefixtures("forked_origin")
def test_other_classes_in_val_are_told_before_training(tmp_path: Path) -> None:
    for name in ("train/x/1.png", "train/y/2.png", "val/x/1.png", "val/z/2.png"):
        image(tmp_path / "photos" / name)
    with pytest.raises(ShardError, match="have classes that those to train on do not have: z"):
        care_pipeline.fn(out=str(tmp_path / "run"), images=str(tmp_path / "photos"), **TINY)
    assert not (tmp_path / "run" / "pretrain").exists()
