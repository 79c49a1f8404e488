"""Deployments for real: a Prefect server, `serve`, a pool with a worker, prefect.yaml.

`nox -s flows` runs them.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
import pytest
from commands import TINY, care, environment, until
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from flows import heartbeats

pytestmark = pytest.mark.flows
ROOT = Path(__file__).parents[2]
LONG = {"steps": 100_000, "batch_size": 8, "hidden": 16, "size": 32, "train_scenes": 32}


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    """Run a `prefect` command against a server of its own; gives its output."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home, address = tmp_path_factory.mktemp("home"), f"http://127.0.0.1:{port}/api"
    variables = environment(
        PREFECT_HOME=str(home),
        PREFECT_API_URL=address,
        DO_NOT_TRACK="1",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
    )
    program = [sys.executable, "-m", "prefect"]
    start = [*program, "server", "start", "--port", str(port)]
    log = (home / "server.log").open("w")
    server = subprocess.Popen(start, env=variables, stdout=log, stderr=log, start_new_session=True)

    def run(*arguments: object, cwd: Path | None = None) -> str:
        command = [*program, *map(str, arguments)]
        ended = subprocess.run(
            command,
            env=variables,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    from flows.server import answers

    until(lambda: answers(address), 120, "server")
    run.variables = variables
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
        try:
            process.communicate(timeout=100)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def parameters(**settings: object) -> list[str]:
    """Options of `prefect deployment run`."""
    words = []
    for name, value in settings.items():
        words += ["--param", f"{name}={json.dumps(value)}"]
    return words


def run_deployment(prefect, kind: str, *options: str, **settings: object) -> None:
    prefect("deployment", "run", f"care-{kind}/care-{kind}", *parameters(**settings), *options)


def runs(prefect, state: str) -> str:
    return prefect("flow-run", "ls", "--state", state)


def running(prefect, flow: str) -> str:
    """The identifier of the run of a flow that goes on."""
    lines = runs(prefect, "RUNNING").splitlines()
    (line,) = [line for line in lines if flow in line]
    return line.split("│")[1].strip()


@pytest.fixture
def served(prefect, started, tmp_path: Path) -> Path:
    """The folder in which the deployments are served."""
    log = (tmp_path / "serve.log").open("w+")
    started(care("pipeline", "serve", env=prefect.variables, cwd=tmp_path, stdout=log))
    kinds = "pipeline reproduce build pretrain knn linear finetune detect report"
    names = [f"care-{kind}/care-{kind}" for kind in kinds.split()]
    until(lambda: all(name in prefect("deployment", "ls") for name in names), 120, "deployments")
    return tmp_path


def test_served_run_and_cancel(prefect, served: Path) -> None:
    lab = served / "lab"
    run_deployment(prefect, "pipeline", "--watch", out="lab", **TINY)
    results = json.loads((lab / "results.json").read_text())
    encoders = {row["encoder"] for row in results["evaluations"]}
    assert encoders == {"random initialisation", "C-stream alone", "CARE"}
    paths = {name: str(lab / name) for name in ("train", "val")}
    encoder = str(lab / "pretrain")
    run_deployment(prefect, "knn", "--watch", out=str(lab), encoder=encoder, k=5, **paths)
    assert any('"k": 5' in path.read_text() for path in lab.glob("stages/knn-*.json"))
    run_deployment(prefect, "report", "--watch", run=str(lab))

    run_deployment(prefect, "pipeline", out="long", **TINY | {"steps": 100_000})
    stage = "long/stages/pretrain-c-stream-*"
    until(lambda: [*served.glob(f"{stage}/timing.jsonl")], 200, "training")
    until(lambda: "RUNNING" in runs(prefect, "RUNNING").upper(), 60, "running")
    identifier = running(prefect, "care-pipeline")
    prefect("flow-run", "cancel", identifier)
    until(lambda: [*served.glob(f"{stage}/status.json")], 5, "status")
    (status,) = served.glob(f"{stage}/status.json")
    until(lambda: json.loads(status.read_text())["state"] == "stopped", 90, "saved")
    assert [*status.parent.glob("checkpoints/step-*/manifest.json")]
    until(lambda: identifier in runs(prefect, "CANCELLED"), 90, "cancelled")

    # the server's page has a button for this: the run begins where it was stopped
    steps = len(next(served.glob(f"{stage}/timing.jsonl")).read_text().splitlines())
    prefect("flow-run", "retry", identifier)
    until(lambda: json.loads(status.read_text())["state"] == "running", 200, "going on")
    (timing,) = served.glob(f"{stage}/timing.jsonl")
    until(lambda: len(timing.read_text().splitlines()) > steps, 100, "steps")
    assert json.loads(timing.read_text().splitlines()[steps])["step"] > 0


@pytest.fixture
def impatient(prefect, monkeypatch):
    """Environment in which runs tell every half minute that they go on, which are soon missed."""
    monkeypatch.setattr(heartbeats, "PATIENCE", timedelta(seconds=120))
    address = prefect.variables["PREFECT_API_URL"]
    with temporary_settings({PREFECT_API_URL: address}), get_client(sync_client=True) as client:
        for patient in client.read_automations_by_name(name=heartbeats.NAME):
            client.delete_automation(patient.id)
        heartbeats.miss_heartbeats()
    return prefect.variables | {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}


def test_a_run_whose_process_was_killed_does_not_stay_running(
    prefect, impatient, tmp_path: Path
) -> None:
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in LONG.items()]
    for number in range(2):  # each finds the automation
        process = care(
            *("pipeline", "run", "--out", tmp_path / str(number), *settings), env=impatient
        )
        until(lambda: "care-pipeline" in runs(prefect, "RUNNING"), 120, "running")
        identifier = running(prefect, "care-pipeline")
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        until(lambda run=identifier: run in runs(prefect, "CRASHED"), 300, "crashed")
    assert prefect("automation", "ls").count("care: a run whose") == 1


def test_a_grid_is_served(prefect, served: Path) -> None:
    settings = {
        name: value for name, value in TINY.items() if not name.startswith(("detection", "segment"))
    }
    run_deployment(
        prefect, "reproduce", "--watch", out="grid", arms=["c-stream"], seeds=[0], **settings
    )
    content = json.loads((served / "grid" / "reproduce.json").read_text())
    assert content["failed"] == []


def test_a_worker_of_a_pool(prefect, started, tmp_path: Path) -> None:
    deploy = care("pipeline", "deploy", "--pool", "shelf", env=prefect.variables, cwd=tmp_path)
    output = deploy.communicate(timeout=200)[0]
    assert deploy.returncode == 0, output
    assert "deployed care-pipeline/care-pipeline" in output
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "shelf"]
    log = (tmp_path / "worker.log").open("w+")
    streams = {"stdout": log, "stderr": log}
    worker = subprocess.Popen(
        command, env=prefect.variables, cwd="/", **streams, text=True, start_new_session=True
    )
    started(worker)
    run_deployment(prefect, "pipeline", "--watch", out="lab", **TINY)
    assert (tmp_path / "lab" / "report.html").exists()


def test_the_deployments_of_the_project_file(prefect) -> None:
    prefect("work-pool", "create", "care", "--type", "process")
    prefect("--no-prompt", "deploy", "--all", cwd=ROOT)
    assert "care-pipeline/care-pipeline" in prefect("deployment", "ls")
    assert "care" in prefect("deployment", "inspect", "care-linear/care-linear")
