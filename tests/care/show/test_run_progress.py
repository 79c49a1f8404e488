"""How far a run is, as its files tell it while it is written."""

import json
import fsspec
import pytest
from small_runs import CrashError, train
from care import CareError
from care.show.run_progress import RunFollower
from shards import locks, storage
from shards.errors import Stopped


def log(run, steps, *, seconds=2.0, waited=0.5, **figures):
    """The first steps of a run, as its log has them."""
    losses = [{"step": n, "cnn": 4.0 - n, **figures} for n in range(steps)]
    timing = [
        {"step": n, "seconds": seconds * (n + 1), "data_wait": waited * (n + 1)}
        for n in range(steps)
    ]
    for name, rows in (("losses", losses), ("timing", timing)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        storage.write_bytes(f"{run}/{name}.jsonl", text.encode())


def say(run, state, **more):
    storage.write_json(f"{run}/status.json", {"state": state, "message": "", **more})


def test_a_run_that_is_going_on_has_a_pace_and_an_end(tmp_path):
    log(tmp_path, 5)
    say(tmp_path, "running", steps=20, batch_size=8)
    with locks.exclusive(tmp_path, "training in"):
        progress = RunFollower(tmp_path).look()
    assert (progress.state, progress.steps, progress.total) == ("running", 5, 20)
    assert progress.images_per_second == pytest.approx(8 / 2)
    assert progress.data_wait == pytest.approx(0.25)
    assert progress.seconds_left == pytest.approx(15 * 2)
    assert progress.figures == {"cnn": [4, 3, 2, 1, 0]}
    assert not progress.has_ended


def test_a_process_that_is_gone_without_a_word_was_killed(tmp_path):
    log(tmp_path, 5)
    say(tmp_path, "running", steps=20, batch_size=8)
    progress = RunFollower(tmp_path).look()
    assert progress.state == "killed"
    assert progress.has_ended
    say(tmp_path, "running", steps=5, batch_size=8)  # it came to its end and no further
    assert RunFollower(tmp_path).look().state == "done"


def test_what_is_new_is_read_and_half_a_line_is_not(tmp_path):
    log(tmp_path, 3)
    say(tmp_path, "running", steps=20, batch_size=8)
    follower = RunFollower(tmp_path)
    assert follower.look().steps == 3
    with (tmp_path / "losses.jsonl").open("a") as file:
        file.write('{"step": 3, "cnn": 9.0}\n{"step": 4, "cn')
    assert follower.look().figures["cnn"] == [4, 3, 2, 9]
    with (tmp_path / "losses.jsonl").open("a") as file:
        file.write('n": 7.0, "knn": 50}\n')
    progress = follower.look()
    assert progress.figures == {"cnn": [4, 3, 2, 9, 7], "knn": [50]}


@pytest.mark.parametrize("steps", [2, 4, 6])
def test_a_log_that_was_cut_back_and_went_on_is_read_anew(tmp_path, steps):
    log(tmp_path, 4)
    say(tmp_path, "running", steps=20, batch_size=8)
    follower = RunFollower(tmp_path)
    follower.look()
    log(tmp_path, 2)
    with (tmp_path / "losses.jsonl").open("a") as file:
        for step in range(2, steps):
            file.write(json.dumps({"step": step, "cnn": 10.125}) + "\n")
    assert follower.look().figures["cnn"] == [4, 3, *[10.125] * (steps - 2)]


def test_the_pace_is_that_of_the_call_that_goes_on(tmp_path):
    """Its clock begins anew."""
    log(tmp_path, 4, seconds=100)
    with (tmp_path / "timing.jsonl").open("a") as file:
        for step in (4, 5, 6):
            file.write(json.dumps({"step": step, "seconds": step - 3, "data_wait": 0}) + "\n")
    say(tmp_path, "running", steps=20, batch_size=8)
    assert RunFollower(tmp_path).look().images_per_second == pytest.approx(8)


def test_a_training_is_followed_to_its_end(data, tmp_path):
    seen = []

    def look(step, numbers):
        progress = RunFollower(tmp_path).look()
        seen.append((progress.state, progress.steps, progress.total))

    train(data, tmp_path, steps=3, on_step=look)
    assert seen == [("running", step, 3) for step in (1, 2, 3)]
    progress = RunFollower(tmp_path).look()
    assert (progress.state, progress.steps, progress.total) == ("done", 3, 3)
    assert progress.images_per_second > 0
    assert {"cnn", "transformer", "spread", "lr"} <= {*progress.figures}


@pytest.mark.parametrize(
    ("error", "state"),
    [(Stopped("by hand"), "stopped"), (CareError("no"), "failed"), (CrashError(), "killed")],
)
def test_however_a_training_ends_its_follower_knows(data, tmp_path, error, state):
    def end(step, numbers):
        raise error

    with pytest.raises(type(error)):
        train(data, tmp_path, on_step=end)
    progress = RunFollower(tmp_path).look()
    assert progress.state == state
    assert progress.message == str(error)
    assert progress.has_ended


def test_a_run_at_a_url_ends_by_its_word(data, tmp_path, monkeypatch):
    monkeypatch.setenv("CARE_CACHE", str(tmp_path / "cache" / "shards"))
    url = "memory://bucket/watched"
    try:
        train(data, url, steps=2)
        progress = RunFollower(url).look()
        assert (progress.state, progress.steps, progress.total) == ("done", 2, 2)
        assert storage.read_json(f"{url}/status.json")["state"] == "done"
    finally:
        fsspec.filesystem("memory").store.clear()


def test_what_is_no_run_is_told(tmp_path):
    with pytest.raises(CareError, match=r"does not exist; wanted the RUN of a training"):
        RunFollower(tmp_path / "none")
    (tmp_path / "stages").mkdir()
    with pytest.raises(CareError, match=r"care pipeline status .*, or its run .*/pretrain"):
        RunFollower(tmp_path)
