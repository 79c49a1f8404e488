"""Deployments for real: a Prefect server, `serve`, a work pool with a worker, prefect.yaml: `nox -s flows`."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
import pytest
from commands import TINY, care, environment, until

pytestmark = pytest.mark.flows
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    """Run a `prefect` command against a server of its own; gives its output."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home, address = tmp_path_factory.mktemp("home"), f"http://127.0.0.1:{port}/api"
    own = environment(
        PREFECT_HOME=str(home),
        PREFECT_API_URL=address,
        DO_NOT_TRACK="1",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
    )
    log = (home / "server.log").open("w")
    base = [sys.executable, "-m", "prefect"]
    server = subprocess.Popen(
        [*base, "server", "start", "--port", str(port)],
        env=own,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )

    def run(*arguments: object, **more) -> str:
        done = subprocess.run(
            [*base, *map(str, arguments)],
            env=own,
            capture_output=True,
            text=True,
            timeout=500,
            **more,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    from flows.server import answers

    until(lambda: answers(address), 120, "server")
    run.own = own
    yield run
    os.killpg(server.pid, signal.SIGTERM)
    server.wait()


@pytest.fixture
def started(prefect):
    """Start commands that go on, end them after the test."""
    running = []

    def start(process: subprocess.Popen) -> subprocess.Popen:
        running.append(process)
        return process

    yield start
    for process in running:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=100)


def parameters(**settings: object) -> list[str]:
    return [
        word
        for name, value in settings.items()
        for word in ("--param", f"{name}={json.dumps(value)}")
    ]


def runs(prefect, state: str) -> str:
    return prefect("flow-run", "ls", "--state", state)


def test_served_run_and_cancel(prefect, started, tmp_path: Path) -> None:
    log = (tmp_path / "serve.log").open("w+")
    started(care("pipeline", "serve", env=prefect.own, cwd=tmp_path, stdout=log))
    names = [
        f"care-{name}/care-{name}"
        for name in (
            "pipeline",
            "build",
            "pretrain",
            "knn",
            "linear",
            "finetune",
            "detect",
            "report",
        )
    ]
    until(lambda: all(name in prefect("deployment", "ls") for name in names), 120, "deployments")
    prefect(
        "deployment",
        "run",
        "care-pipeline/care-pipeline",
        *parameters(out="lab", **TINY),
        "--watch",
    )
    results = json.loads((tmp_path / "lab" / "results.json").read_text())
    assert {row["encoder"] for row in results["evaluations"]} == {
        "random initialisation",
        "C-stream alone",
        "CARE",
    }
    lab = tmp_path / "lab"
    stage = parameters(
        out=str(lab),
        encoder=str(lab / "pretrain"),
        train=str(lab / "train"),
        val=str(lab / "val"),
        k=5,
    )
    prefect("deployment", "run", "care-knn/care-knn", *stage, "--watch")
    assert any('"k": 5' in path.read_text() for path in lab.glob("stages/knn-*.json"))
    prefect("deployment", "run", "care-report/care-report", *parameters(run=str(lab)), "--watch")

    long = TINY | {"steps": 100_000}
    prefect("deployment", "run", "care-pipeline/care-pipeline", *parameters(out="long", **long))
    until(lambda: [*tmp_path.glob("long/stages/pretrain-c-stream-*/timing.jsonl")], 200, "training")
    until(lambda: "RUNNING" in runs(prefect, "RUNNING").upper(), 60, "running")
    (identifier,) = [
        line.split("│")[1].strip()
        for line in runs(prefect, "RUNNING").splitlines()
        if "care-pipeline" in line
    ]
    prefect("flow-run", "cancel", identifier)
    until(lambda: [*tmp_path.glob("long/stages/pretrain-c-stream-*/status.json")], 5, "status")
    (status,) = tmp_path.glob("long/stages/pretrain-c-stream-*/status.json")
    until(lambda: json.loads(status.read_text())["state"] == "stopped", 90, "saved")
    assert [*status.parent.glob("checkpoints/step-*/manifest.json")]
    until(lambda: identifier in runs(prefect, "CANCELLED"), 90, "cancelled")


def test_a_worker_of_a_pool(prefect, started, tmp_path: Path) -> None:
    deploy = care("pipeline", "deploy", "--pool", "shelf", env=prefect.own, cwd=tmp_path)
    output = deploy.communicate(timeout=200)[0]
    assert deploy.returncode == 0, output
    assert "deployed care-pipeline/care-pipeline" in output
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "shelf"]
    log = (tmp_path / "worker.log").open("w+")
    started(
        subprocess.Popen(
            command,
            env=prefect.own,
            cwd="/",
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    )
    prefect(
        "deployment",
        "run",
        "care-pipeline/care-pipeline",
        *parameters(out="lab", **TINY),
        "--watch",
    )
    assert (tmp_path / "lab" / "report.html").exists()


def test_the_deployments_of_the_project_file(prefect) -> None:
    prefect("work-pool", "create", "care", "--type", "process")
    prefect("--no-prompt", "deploy", "--all", cwd=ROOT)
    assert "care-pipeline/care-pipeline" in prefect("deployment", "ls")
    assert "care" in prefect("deployment", "inspect", "care-linear/care-linear")
