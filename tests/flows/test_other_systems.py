"""Systems that lack what is Linux' own, as Macs do: forks, prctl, mallopt, /proc, affinity."""

import json
import subprocess
import sys
from pathlib import Path
import pytest
from commands import TINY, environment, options
from flows.supervise import Children

# what Python runs in every process before anything else
SITE = """
import ctypes, multiprocessing, os, pathlib, socket

class Library:
    pass

whole_library = ctypes.CDLL
ctypes.CDLL = lambda name, *rest, **named: (
    Library() if name is None else whole_library(name, *rest, **named)
)
del os.sched_getaffinity
multiprocessing.set_start_method("spawn")
read_text = pathlib.Path.read_text
def read_no_proc(path, *rest, **named):
    if str(path).startswith(("/proc", "/sys")):
        raise FileNotFoundError(path)
    return read_text(path, *rest, **named)
pathlib.Path.read_text = read_no_proc
def no_fork():
    raise AssertionError("forked")
os.fork = no_fork
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """The environment of processes that find themselves on another system."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITE)
    variables = environment(CARE_FORK="no", PREFECT_SERVER_ANALYTICS_ENABLED="false")
    variables["PYTHONPATH"] = f"{folder}:{variables['PYTHONPATH']}"
    return variables


def run(variables: dict[str, str], *arguments: object) -> str:
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    ended = subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_a_stage_has_a_process_of_its_own_without_a_fork(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CARE_FORK", "no")
    said: list[str] = []
    children = Children(jobs=1)
    try:
        inputs = {"count": 4, "size": 32, "seed": 0}
        arguments = [str(tmp_path), "scenes", "data.no_such_work", inputs, "key"]
        with pytest.raises(RuntimeError, match="no_such_work"):
            children.run("stage", arguments, said.append)
    finally:
        children.stop()


@pytest.mark.flows
def test_sets_trainings_and_evaluations(elsewhere, photos, tmp_path: Path) -> None:
    run(elsewhere, "shards", "build", photos, tmp_path / "set", "--workers", 2)
    tiny = options({"size": 32, "batch-size": 8, "epochs": 1, "hidden": 16, "workers": 1})
    pretrain = ("pretrain", tmp_path / "set", tmp_path / "run", "--encoder", "resnet18-small-half")
    run(elsewhere, *pretrain, *tiny)
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "done"
    data = ("--train", tmp_path / "set", "--val", tmp_path / "set", "--out", tmp_path / "judged")
    assert "kNN" in run(elsewhere, "evaluate", "knn", tmp_path / "run", *data)


@pytest.mark.flows
@pytest.mark.parametrize("engine", [["--plain"], []], ids=["plain", "Prefect"])
def test_the_pipeline(elsewhere, tmp_path: Path, engine) -> None:
    run(elsewhere, "pipeline", "run", "--out", tmp_path / "out", *engine, *options(TINY))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["encoder"] for row in results["evaluations"]} >= {"CARE", "C-stream alone"}


@pytest.mark.flows
def test_two_processes_train_as_one(elsewhere, photos, tmp_path: Path) -> None:
    run(elsewhere, "shards", "build", photos, tmp_path / "set")
    tiny = options({"size": 32, "batch-size": 8, "epochs": 1, "hidden": 16, "nproc": 2})
    pretrain = ("pretrain", tmp_path / "set", tmp_path / "run", "--encoder", "resnet18-small-half")
    run(elsewhere, *pretrain, *tiny)
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "done"
