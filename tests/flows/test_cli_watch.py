"""`care watch`, on runs whose files are there."""

import json
from pathlib import Path
import pytest
from shards import locks, storage


def write_run(run: Path, state: str, *, steps: int = 4, **figures: float) -> None:
    losses = [{"step": n, "cnn": 2.0 - n / 10, "rankme": 5.0 + n} for n in range(steps)]
    timing = [{"step": n, "seconds": n + 1.0, "data_wait": 0.1 * n} for n in range(steps)]
    for name, rows in (("losses", losses), ("timing", timing)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        storage.write_bytes(run / f"{name}.jsonl", text.encode())
    status = {"state": state, "message": "", "steps": 100, "batch_size": 32}
    storage.write_json(run / "status.json", status)


def test_a_snapshot_says_how_it_is_now(care, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    write_run(tmp_path / "run", "running")
    with locks.exclusive(tmp_path / "run", "training in"):
        code, out, error = care("watch", tmp_path / "run", "--once")
    assert (code, error) == (0, "")
    assert "running" in out
    assert "step 4 of 100, 32.0 images/s, waiting for data 10%, 2 min left" in out
    assert "RankMe         ▁▃▆█" in out
    assert max(len(line) for line in out.splitlines() if "run" not in line) <= 80


def test_a_snapshot_is_json_where_that_is_wanted(care, tmp_path: Path) -> None:
    write_run(tmp_path, "failed")
    code, out, _ = care("watch", tmp_path, "--json")
    assert code == 0
    progress = json.loads(out)
    assert (progress["state"], progress["steps"], progress["total"]) == ("failed", 4, 100)
    assert progress["figures"]["rankme"] == [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("word", "shown", "ends_with"),
    [("done", "done", 0), ("failed", "failed", 1), ("stopped", "stopped", 3)],
)
def test_watching_ends_as_the_run_does(care, tmp_path: Path, word, shown, ends_with) -> None:
    write_run(tmp_path, word)
    code, out, _ = care("watch", tmp_path)
    assert code == ends_with
    assert shown in out


def test_a_run_that_goes_on_is_watched_until_it_ends(care, tmp_path: Path, monkeypatch) -> None:
    write_run(tmp_path, "running")
    pauses = []

    def go_on(seconds: float) -> None:
        pauses.append(seconds)
        write_run(tmp_path, "running" if len(pauses) < 3 else "done", steps=4 + len(pauses))

    monkeypatch.setattr("flows.cli.watch.time.sleep", go_on)
    with locks.exclusive(tmp_path, "training in"):
        code, out, _ = care("watch", tmp_path, "--seconds", 0.5)
    assert (code, pauses) == (0, [0.5] * 3)
    assert "step 7 of 100" in out


def test_who_has_seen_enough_is_no_failure(care, tmp_path: Path, monkeypatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    write_run(tmp_path, "running")
    monkeypatch.setattr("flows.cli.watch.time.sleep", interrupt)
    with locks.exclusive(tmp_path, "training in"):
        code, out, _ = care("watch", tmp_path)
    assert code == 0
    assert "running" in out


def test_what_is_no_run_is_told_in_a_line(care, tmp_path: Path) -> None:
    code, _, error = care("watch", tmp_path / "none")
    assert code == 1
    assert "wanted the RUN of a training" in error
