"""`care maps` and `care evaluate attention`, as they are typed."""

import json
import pytest
from flat import gathered
from small_runs import SETTINGS, make_streams
import shards
from care.train import pretrain
from shards import scenes

NETWORK = "random:resnet18-small-half"


@pytest.fixture(scope="module")
def scene_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    scenes.write(folder, count=4, size=32)
    return folder


@pytest.fixture(scope="module")
def run(scene_folder, tmp_path_factory):
    """A run of both streams, of a step on scenes."""
    folder = tmp_path_factory.mktemp("run")
    shards.build(scene_folder / "images", folder / "set", workers=1)
    settings = gathered(SETTINGS | {"steps": 1, "warmup": 0, "batch_size": 4})
    pretrain(shards.open(folder / "set"), folder / "run", *make_streams(), **settings)
    return folder / "run"


def test_maps_of_a_run_beside_others_are_a_sheet_and_files_and_on_the_runs_page(
    care, scene_folder, run
) -> None:
    options = ["--kind", "grad-cam,t-stream", "--count", 3, "--out", run, "--json"]
    code, out, error = care("maps", run, NETWORK, scene_folder, *options)
    assert code == 0, error
    result = json.loads(out)
    assert result["rows"] == [f"{run} grad-cam", f"{NETWORK} grad-cam", f"{run} t-stream"]
    assert len(result["images"]) == 3
    assert len(result["files"]) == 4 * 3
    assert f"{NETWORK} has no T-stream" in error
    assert (run / "maps.png").read_bytes().startswith(b"\x89PNG")
    code, out, error = care("report", run)
    assert code == 0, error
    page = (run / "report.html").read_text()
    assert "what the T-stream attends to: attention of block 1 of 1, mean over 4 heads" in page


def test_maps_of_classes_are_of_those_that_a_set_has(care, scene_folder, tmp_path) -> None:
    shards.build(scene_folder / "images", tmp_path / "set", workers=1)
    labelled = tmp_path / "set"
    options = ["--kind", "class", "--train", labelled, "--size", 32, "--count", 1]
    code, out, error = care("maps", NETWORK, labelled, *options, "--out", tmp_path / "maps")
    assert code == 0, error
    assert f"{tmp_path}/maps/maps.png: 1 images, 1 rows of maps" in out
    assert "Grad-CAM at the last stage of the class below each picture" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "lime"], "wanted kinds of maps among grad-cam, eigen-cam, norm, class"),
        (["--kind", "class"], "wanted labelled images to learn a class from; give --train SET"),
        (["--kind", "t-stream"], "none of these encoders has a T-stream"),
        (["--stage", "conv9"], "this encoder has no stage 'conv9'; choose one of layer1"),
        (["--query", "a,b"], "wanted numbers with commas between them"),
    ],
)
def test_a_mistake_is_one_line(care, scene_folder, tmp_path, options, message) -> None:
    out = tmp_path / "maps"
    code, _, error = care("maps", NETWORK, scene_folder, "--size", 32, *options, "--out", out)
    assert code in (1, 2)
    assert message in " ".join(error.split())
    assert "Traceback" not in error
    assert not out.exists()


def test_attention_is_judged_without_data_to_learn_from(
    care, scene_folder, run, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sets = ["--val", scene_folder, "--size", 32, "--json"]
    code, out, error = care("evaluate", "attention", run, NETWORK, *sets)
    assert code == 0, error
    rows = json.loads(out)
    assert [row["encoder"] for row in rows] == [str(run), NETWORK]
    assert {*rows[0]["digests"]} == {"encoder", "val"}
    assert rows[0]["settings"] == rows[1]["settings"]
    assert rows[0]["area"] == rows[1]["area"]
    code, again, _ = care("evaluate", "attention", run, *sets)
    assert json.loads(again) == rows[:1]
    code, out, error = care("evaluate", "attention", run, *sets, "--kind", "t-stream")
    assert code == 0, error
    assert json.loads(out)[0]["inside"] != rows[0]["inside"]
    code, _, error = care("evaluate", "attention", NETWORK, *sets, "--kind", "t-stream")
    assert code == 1
    assert f"error: {NETWORK} has no T-stream; wanted a run of care pretrain" in error
