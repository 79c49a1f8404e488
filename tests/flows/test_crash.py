"""The whole chain killed at random moments: `nox -s crash`."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.crash
CHAIN = """
import sys
from flows.pipeline import care_pipeline
from flows.server import server
with server():
    care_pipeline(sys.argv[1], steps=12, batch_size=16, hidden=16, size=32, train_scenes=200, val_scenes=80, checkpoint_every=2,
        finetune_steps=10, labels=(0.2,), detection_size=32, detection_iterations=20)
"""
KILLS = 12


def start(out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CHAIN, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def servers() -> set[str]:
    return {pid.name for pid in Path("/proc").iterdir() if pid.name.isdigit() and b"server\0start\0--host" in command_line(pid)}


def command_line(pid: Path) -> bytes:
    try:
        return (pid / "cmdline").read_bytes()
    except OSError:
        return b""


def finished(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "stages").glob("*.json")}


def test_killed_anywhere_it_ends_with_the_same_results(tmp_path: Path) -> None:
    assert start(tmp_path / "calm").wait() == 0
    rng, out, killed, before = random.Random(0), tmp_path / "killed", 0, servers()
    stages = len(finished(tmp_path / "calm"))
    while killed < KILLS:
        process = start(out)
        known, target, deadline = finished(out), min(killed, stages - 1), time.monotonic() + 120
        # wait until this round's stage is about to run, then a random part of it
        while len(finished(out)) < target and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1.5) if target else rng.uniform(3, 12))
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
        now = finished(out)
        assert {name: now[name] for name in known} == known, "a finished stage was done again"
    assert start(out).wait() == 0
    for name in ("results.json", "encoder.safetensors", "losses.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
    deadline = time.monotonic() + 30
    while servers() - before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert servers() <= before, "a server outlived its command"


def test_interrupted_it_saves_and_exits_with_3(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from flows.cli import main; main()", "demo", "--out", str(tmp_path / "run"), "--steps", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    losses, deadline = tmp_path / "run" / "c-stream" / "timing.jsonl", time.monotonic() + 300
    while not (losses.exists() and losses.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    _, error = process.communicate(timeout=120)
    assert process.returncode == 3, error.decode()
    assert b"stopped on request" in error
    assert b"Traceback" not in error
    assert list((tmp_path / "run" / "c-stream" / "checkpoints").glob("step-*/manifest.json"))
