import json
from pathlib import Path

import pytest

from flows.pipeline import stage
from shards import storage


class Counter:
    def __init__(self, out: Path) -> None:
        self.out, self.runs = out, 0

    def __call__(self) -> dict[str, object]:
        self.runs += 1
        storage.write_bytes(self.out / "result.bin", b"x" * self.runs)
        return {"outputs": {"result.bin": storage.sha256(self.out / "result.bin")}, "runs": self.runs}


@pytest.fixture
def work(tmp_path: Path) -> Counter:
    return Counter(tmp_path)


def test_equal_inputs_are_not_worked_again(tmp_path: Path, work: Counter) -> None:
    assert stage(tmp_path, "a", {"x": 1}, work) == ({"outputs": work_digest(tmp_path), "runs": 1}, False)
    assert stage(tmp_path, "a", {"x": 1}, work) == ({"outputs": work_digest(tmp_path), "runs": 1}, True)
    assert work.runs == 1


def work_digest(out: Path) -> dict[str, str]:
    return {"result.bin": storage.sha256(out / "result.bin")}


@pytest.mark.parametrize("change", ["inputs", "name", "code"])
def test_any_change_works_again(tmp_path: Path, work: Counter, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    stage(tmp_path, "a", {"x": 1}, work)
    if change == "code":
        monkeypatch.setattr("flows.pipeline.code_version", lambda: "edited")
    done = stage(tmp_path, "b" if change == "name" else "a", {"x": 2 if change == "inputs" else 1}, work)
    assert not done.cached
    assert work.runs == 2


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(b"other")])
def test_a_hit_is_checked_against_the_output(tmp_path: Path, work: Counter, damage) -> None:
    stage(tmp_path, "a", {}, work)
    damage(tmp_path / "result.bin")
    assert not stage(tmp_path, "a", {}, work).cached


def test_failed_work_leaves_no_record(tmp_path: Path) -> None:
    def fail() -> dict[str, object]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        stage(tmp_path, "a", {}, fail)
    assert not list(tmp_path.rglob("*.json"))


def test_the_record_is_readable_json(tmp_path: Path, work: Counter) -> None:
    stage(tmp_path, "a", {"x": [1, 2]}, work)
    assert json.loads((tmp_path / "stages" / "a.json").read_text())["inputs"] == {"x": [1, 2]}
