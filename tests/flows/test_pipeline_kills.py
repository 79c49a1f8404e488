"""The pipeline killed at random moments, wherever it is: `nox -s flows`."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
import pytest
from commands import below, care, environment, options, table, until
from flows.server import answers

pytestmark = pytest.mark.flows
SETTINGS = {
    "steps": 12,
    "batch_size": 16,
    "hidden": 16,
    "size": 32,
    "train_scenes": 200,
    "val_scenes": 80,
    "checkpoint_every": 2,
    "finetune_steps": 10,
    "labels": (0.2,),
    "detection_size": 32,
    "detection_iterations": 20,
    "segment_iterations": 2,
}
FILES = ("results.json", "encoder.safetensors", "losses.jsonl", "maps.png", "report.html")
KILLS = int(os.environ.get("CARE_KILLS", "50"))


def start(out: Path):
    return care("pipeline", "run", "--out", out, *options(SETTINGS), env=environment())


def victims(flow: int) -> dict[str, list[int]]:
    """Processes to kill: the flow's own, its server, those of stages with what they start."""
    children = below(flow)
    server = [pid for pid, line in children.items() if "create_app" in line]
    stages = [pid for pid in children if pid not in server]
    return {"flow": [flow], "server": server, "child": stages}


def finished(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "stages").glob("[!.]*.json")}


class Killer:
    """Kills processes of a pipeline at random moments, while it starts and while it works."""

    def __init__(self) -> None:
        self.killed = dict.fromkeys(("flow", "server", "child"), 0)
        self._rng = random.Random(0)

    @property
    def is_through(self) -> bool:
        return sum(self.killed.values()) >= KILLS

    def kill_one(self, process) -> None:
        time.sleep(self._rng.uniform(0, self._rng.choice([4, 40])))
        kind = self._rng.choice([*self.killed])
        if process.poll() is None and (chosen := victims(process.pid)[kind]):
            os.kill(self._rng.choice(chosen), signal.SIGKILL)
            self.killed[kind] += 1
            if kind == "flow":
                process.communicate()


def run_under_fire(out: Path, killer: Killer) -> dict[str, int]:
    """Start the pipeline until it is done; no finished stage is done again. Gives its records."""
    records = dict[str, int]()
    process = start(out)
    while True:
        output = ""
        if killer.is_through:
            output = process.communicate()[0]
        else:
            killer.kill_one(process)
        now = finished(out)
        again = {name: now.get(name) for name in records}
        assert again == records, "a finished stage was done again"
        records = now
        if process.poll() is not None:
            if process.stdout and not process.stdout.closed:
                output = process.communicate()[0]
            assert "Traceback" not in output, output
            if process.returncode == 0:
                return records
            process = start(out)


def test_killed_anywhere_it_ends_with_the_same_results(tmp_path: Path) -> None:
    calm = start(tmp_path / "calm")
    output = calm.communicate()[0]
    assert calm.returncode == 0, output
    before = set(table())
    killer, rounds = Killer(), 0
    while not killer.is_through:  # a run that ends before the last kill is followed by one more
        out = tmp_path / f"killed-{rounds}"
        rounds += 1
        records = run_under_fire(out, killer)
        for name in FILES:
            wanted = (tmp_path / "calm" / name).read_bytes()
            assert (out / name).read_bytes() == wanted, f"{out}: {name}"
        assert records.keys() == finished(tmp_path / "calm").keys()
    print(f"{killer.killed} in {rounds} runs of {len(records)} stages")
    assert min(killer.killed.values()) >= KILLS // 6

    def ours() -> list[int]:
        words = ("flows.child", "create_app", str(tmp_path))
        processes = {pid: line for pid, (_, line) in table().items() if pid not in before}
        return [pid for pid, line in processes.items() if any(word in line for word in words)]

    until(lambda: not ours(), 90, "orphans")


@pytest.mark.parametrize("more", [(), ("--plain",)], ids=["prefect", "plain"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_saves_and_exits_with_3(
    tmp_path: Path, number: signal.Signals, more: tuple[str, ...]
) -> None:
    process = care(
        "pipeline",
        "run",
        *more,
        "--out",
        tmp_path,
        *options(SETTINGS | {"steps": 100_000}),
        env=environment(),
    )
    until(lambda: [*tmp_path.glob("stages/pretrain-c-stream-*/timing.jsonl")], 300, "training")
    time.sleep(1)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: to the whole foreground group
    else:
        process.send_signal(number)  # as a scheduler does
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 3, output
    assert "stopped" in output
    assert "Traceback" not in output
    assert [*tmp_path.glob("stages/pretrain-c-stream-*/checkpoints/step-*/manifest.json")]


def test_two_at_once_do_every_stage_once(tmp_path: Path) -> None:
    both = [start(tmp_path), start(tmp_path)]
    outputs = [process.communicate(timeout=500)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sum(text.count("pretrain: pre-training: 192/192") for text in outputs) == 1
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("stages/*.json")}
    assert len(times) == len({path.name.rpartition("-")[0] for path in times})


def test_a_configured_server_that_dies_is_done_without(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    variables = environment(
        PREFECT_HOME=str(tmp_path / "prefect"), PREFECT_API_URL=f"http://127.0.0.1:{port}/api"
    )
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    null, out = subprocess.DEVNULL, tmp_path / "a"
    server = subprocess.Popen(
        command, env=variables, stdin=null, stdout=null, stderr=null, start_new_session=True
    )
    try:
        until(lambda: answers(variables["PREFECT_API_URL"]), 120, "a server")
        process = care("pipeline", "run", "--out", out, *options(SETTINGS), env=variables)
        until(lambda: finished(out), 300, "a stage")
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    known = finished(out)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert "going on without it" in output
    now = finished(out)
    assert {name: now[name] for name in known} == known, "a finished stage was done again"
    assert len(now) == len({name.rpartition("-")[0] for name in now}) > 20
    plain = care(
        "pipeline",
        "run",
        "--plain",
        "--out",
        tmp_path / "plain",
        *options(SETTINGS),
        env=environment(),
    )
    output = plain.communicate(timeout=500)[0]
    assert plain.returncode == 0, output
    for name in FILES:
        assert (out / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name


def test_a_server_that_is_gone_for_good_is_done_without(tmp_path: Path) -> None:
    process = care(
        "pipeline",
        "run",
        "--out",
        tmp_path / "a",
        *options(SETTINGS),
        env=environment(PREFECT_API_URL="http://127.0.0.1:9/api"),
    )
    output = process.communicate(timeout=500)[0]
    assert process.returncode == 0, output
    assert "going on without it" in output
    assert (tmp_path / "a" / "results.json").exists()
