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
}
FILES = ("results.json", "encoder.safetensors", "losses.jsonl", "maps.png", "report.html")
KILLS = int(os.environ.get("CARE_KILLS", "50"))


def start(out: Path):
    return care("pipeline", "run", "--out", out, *options(SETTINGS), env=environment())


def victims(flow: int) -> dict[str, list[int]]:
    """Processes to kill, by kind: the flow's own, its server, those of stages and what they have started."""
    children = below(flow)
    server = [pid for pid, line in children.items() if "create_app" in line]
    return {
        "flow": [flow],
        "server": server,
        "child": [pid for pid in children if pid not in server],
    }


def finished(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "stages").glob("[!.]*.json")}


def test_killed_anywhere_it_ends_with_the_same_results(tmp_path: Path) -> None:
    calm = start(tmp_path / "calm")
    output = calm.communicate()[0]
    assert calm.returncode == 0, output
    rng, killed, rounds, before = (
        random.Random(0),
        dict.fromkeys(("flow", "server", "child"), 0),
        0,
        set(table()),
    )
    while (
        sum(killed.values()) < KILLS
    ):  # a run that ends before the last kill is followed by one more
        out, process, known, rounds = (
            tmp_path / f"killed-{rounds}",
            None,
            dict[str, int](),
            rounds + 1,
        )
        while True:
            process = process or start(out)
            if sum(killed.values()) < KILLS:
                time.sleep(
                    rng.uniform(0, rng.choice([4, 40]))
                )  # some while it starts, some while it works
                kind = rng.choice([*killed])
                if process.poll() is None and (chosen := victims(process.pid)[kind]):
                    os.kill(rng.choice(chosen), signal.SIGKILL)
                    killed[kind] += 1
                    if kind == "flow":
                        process.communicate()
            else:
                output = process.communicate()[0]
            now = finished(out)
            assert {name: now.get(name) for name in known} == known, (
                "a finished stage was done again"
            )
            known = now
            if process.poll() is not None:
                output = (
                    process.communicate()[0] if process.stdout and not process.stdout.closed else ""
                )
                assert "Traceback" not in output, output
                if process.returncode == 0:
                    break
                process = None
        for name in FILES:
            assert (out / name).read_bytes() == (tmp_path / "calm" / name).read_bytes(), (
                f"{out}: {name}"
            )
        assert known.keys() == finished(tmp_path / "calm").keys()
    print(f"{killed} in {rounds} runs of {len(known)} stages")
    assert min(killed.values()) >= KILLS // 6
    ours = ("flows.child", "create_app", str(tmp_path))
    mine = lambda: [
        pid
        for pid, (_, line) in table().items()
        if pid not in before and any(word in line for word in ours)
    ]
    until(lambda: not mine(), 90, "orphans")


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
