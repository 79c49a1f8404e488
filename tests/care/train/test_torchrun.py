"""`care pretrain --nproc 2` killed, stopped and continued: `nox -s resume`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
import pytest

pytestmark = pytest.mark.resume
EPOCHS = 12
BOUND = 45
"""Seconds: torchrun gives its processes 30 to end."""


def start(image_set, run, *more, nproc=2):
    options = {
        "encoder": "resnet18-small-half",
        "size": 32,
        "batch-size": 12,
        "epochs": EPOCHS,
        "hidden": 32,
        "precision": "fp32",
        "checkpoint-every": 2,
        "nproc": nproc,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "care.train", str(image_set), str(run), *words, *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def members(run):
    """The training processes of a run, by pid."""
    found = []
    for pid in Path("/proc").iterdir():
        try:
            words, environment = (
                (pid / "cmdline").read_bytes().split(b"\0"),
                (pid / "environ").read_bytes(),
            )
        except OSError:
            continue
        if os.fsencode(run) in words and b"TORCHELASTIC_RUN_ID" in environment:
            found.append(int(pid.name))
    return sorted(found)


def steps(run):
    log = run / "losses.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def result(run):
    return (run / "encoder.safetensors").read_bytes(), (run / "losses.jsonl").read_bytes()


@pytest.fixture(scope="module")
def whole(image_set, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    process = start(image_set, run)
    out, error = process.communicate(timeout=180)
    assert process.returncode == 0, error
    assert f"{2 * EPOCHS} steps done" in out
    return run


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_takes_the_others_with_it_and_all_continue(
    whole, image_set, tmp_path, victim
):
    process = start(image_set, tmp_path)
    wait_for(lambda: steps(tmp_path) > 5)
    os.kill(members(tmp_path)[victim], signal.SIGKILL)
    _, error = process.communicate(timeout=180)
    assert process.returncode == 0, error
    assert "a process died; all continue from the last checkpoint" in error
    assert result(tmp_path) == result(whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_ends_everything_and_exits_with_3(
    whole, image_set, tmp_path, number
):
    process = start(image_set, tmp_path)
    wait_for(lambda: steps(tmp_path) > 3)
    process.send_signal(number)
    _, error = process.communicate(timeout=BOUND)
    assert process.returncode == 3, error
    assert "stopped on request after step" in error
    assert members(tmp_path) == []
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "stopped"
    process = start(image_set, tmp_path)
    process.communicate(timeout=180)
    assert process.returncode == 0
    assert result(tmp_path) == result(whole)


def test_processes_whose_starter_was_killed_end_by_themselves(whole, image_set, tmp_path):
    process = start(image_set, tmp_path)
    wait_for(lambda: steps(tmp_path) > 3)
    process.kill()
    process.wait()
    wait_for(lambda: not members(tmp_path), BOUND)
    process = start(image_set, tmp_path)
    _, error = process.communicate(timeout=180)
    assert process.returncode == 0, error
    assert result(tmp_path) == result(whole)


def test_what_is_wrong_with_the_call_is_told_and_not_tried_again(whole, image_set):
    before = result(whole)
    process = start(image_set, whole, "--lr", "0.1")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "--lr 0.05; this call has --lr 0.1" in error.splitlines()[-1]
    assert "Traceback" not in error
    assert "all continue" not in error
    assert result(whole) == before


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [(["--accumulate", "5"], 2, "multiple of 2 processes"), ([], 1, "wanted a shard set")],
)
def test_what_can_be_told_before_is(image_set, tmp_path, more, code, message):
    process = start(image_set if more else tmp_path / "nothing", tmp_path / "run", *more)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()
