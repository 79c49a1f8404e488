"""Keys, records and links of stages, without doing any."""

import json
import os
from pathlib import Path
import pytest
from PIL import Image
from flows import identity, records
from shards import storage
from shards.errors import StoreError

SET = {"url": "s/train", "digest": "a" * 64}


def key(work="pretrain", **changes):
    return records.key_stage(
        "out", "name", work, {"train": SET, "steps": 3, "lr": 0.4, **changes}
    ).key


def finished(out: Path) -> records.KeyedStage:
    one = records.key_stage(str(out), "knn", "judge", {"verb": "knn"})
    storage.write_bytes(f"{one.url}/results.json", b"{}")
    file = {"size": 2, "sha256": storage.sha256(f"{one.url}/results.json")}
    storage.write_json(
        f"{one.url}.json",
        {"key": one.key, "result": {"text": "done", "outputs": {"results.json": file}}},
    )
    return one


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 4},
        {"lr": 0.5},
        {"train": SET | {"digest": "b" * 64}},
        {"seed": 1},
        {"work": "features"},
    ],
)
def test_what_decides_a_result_is_in_the_key(change) -> None:
    assert key(**change) != key()


@pytest.mark.parametrize(
    "change",
    [
        {"train": SET | {"url": "elsewhere"}},
        {"workers": 3},
        {"nproc": 8},
        {"recompute": "all"},
        {"checkpoint_every": 2},
        {"cache": "x"},
        {"max_rejects": 0.5},
    ],
)
def test_what_decides_nothing_is_not(change) -> None:
    assert key(**change) == key()


def test_a_run_is_known_by_its_newest_checkpoint_and_a_file_by_its_bytes(tmp_path: Path) -> None:
    def known() -> str:
        return identity.input_identity("encoder", str(tmp_path / "run"), {})

    assert known() == str(tmp_path / "run")  # nothing there yet: loading it will tell
    storage.write_bytes(tmp_path / "run" / "encoder.safetensors", b"of the run's end")
    assert known() == str(tmp_path / "run")
    seen = []
    for step in (99999998, 99999999):
        storage.write_bytes(
            tmp_path / "run" / "checkpoints" / f"step-{step:08}" / "manifest.json",
            f"{step}".encode(),
        )
        seen.append(known())
    assert seen == [
        storage.sha256(file) for file in sorted(tmp_path.glob("run/checkpoints/*/manifest.json"))
    ]
    file = tmp_path / "run" / "encoder.safetensors"
    assert identity.input_identity("encoder", str(file), {}) == storage.sha256(file)
    for parts in (["teacher", ""], ["", "resnet18-cifar"], ["teacher", "resnet18-cifar"]):
        source = ":".join(filter(None, [str(file), *parts]))
        assert identity.input_identity("encoder", source, {}) == [storage.sha256(file), *parts]


def test_a_source_is_its_bytes_wherever_it_lies(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CARE_CACHE", str(tmp_path / "cache" / "shards"))

    def write(folder: str, colour: str) -> Path:
        (tmp_path / folder / "a").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), colour).save(tmp_path / folder / "a" / "1.bmp")
        return tmp_path / folder

    first = key("build", train=None, source=str(write("here", "red")))
    assert key("build", train=None, source=str(write("there", "red"))) == first
    assert key("build", train=None, source=str(write("here", "blue"))) != first
    assert key("build", train=None, source=str(write("here", "red"))) == first


def test_a_record_counts_while_its_outputs_are_what_they_were(tmp_path: Path, capsys) -> None:
    one = finished(tmp_path)
    assert records.finished_result(one) == {
        "text": "done",
        "outputs": records.finished_result(one)["outputs"],
        "url": one.url,
    }
    storage.write_bytes(f"{one.url}/results.json", b"[]")
    assert records.finished_result(one) is None
    assert "knn is done again: results.json is not what it was" in capsys.readouterr().err
    storage.write_bytes(f"{one.url}.json", b"no JSON")
    assert records.finished_result(one) is None
    assert "knn is done again: Expecting value" in capsys.readouterr().err
    assert records.finished_result(one._replace(key="other" * 10)) is None
    assert capsys.readouterr().err == ""  # one that never was


def test_a_store_that_fails_does_not_make_a_stage_unfinished(tmp_path: Path, monkeypatch) -> None:
    one = finished(tmp_path)

    def fail(*_):
        raise StoreError("cannot read")

    monkeypatch.setattr(storage, "read_bytes", fail)
    with pytest.raises(StoreError):
        records.finished_result(one)
    with pytest.raises(StoreError):
        records.finish(one)  # nor is it cleared
    assert json.loads(Path(f"{one.url}.json").read_text())["key"] == one.key


def test_links_give_way_to_folders_of_the_user_and_to_left_over_ones(tmp_path: Path) -> None:
    one = finished(tmp_path)
    (tmp_path / f".part-knn-{os.getpid()}").symlink_to("nowhere")
    records.link(one)
    records.link(one)
    assert (tmp_path / "knn").resolve() == Path(one.url).resolve()
    (tmp_path / "knn").unlink()
    (tmp_path / "knn").mkdir()
    records.link(one)
    assert not (tmp_path / "knn").is_symlink()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".part")] == []


def test_a_cleared_stage_is_gone(tmp_path: Path) -> None:
    one = finished(tmp_path)
    records.clear(one)
    records.clear(one)
    assert [*(tmp_path / "stages").iterdir()] == []
