"""Shards and features mapped over threads, Dask and Ray: `nox -s flows`."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
import pytest
from commands import TINY, below, care, environment, options
from listeners import listening
from flows.runners import task_runner

pytestmark = pytest.mark.flows
# train has two shards; of the evaluations one is enough
MANY = {**TINY, "train_scenes": 1100, "val_scenes": 40, "evaluate": ("knn",)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "run"
    process = care("pipeline", "run", "--out", out, "--plain", *options(MANY), env=environment())
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return out


@pytest.mark.parametrize("runner", ["threads", "dask", "ray"])
def test_the_pieces_of_a_stage_are_done_there_and_give_the_same(
    plain: Path, tmp_path: Path, runner: str
) -> None:
    if runner != "threads":
        pytest.importorskip({"dask": "prefect_dask", "ray": "ray"}[runner])
    process = care(
        "pipeline",
        "run",
        "--out",
        tmp_path / "mapped",
        "--runner",
        runner,
        *options(MANY),
        env=environment(),
    )
    seen, addresses = set(), set()
    while process.poll() is None:
        time.sleep(0.2)
        for pid, line in below(process.pid).items():
            seen |= {word for word in ("raylet", "spawn_main") if word in line}
            with suppress(OSError):  # it has ended
                addresses |= listening(pid)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert addresses <= {"127.0.0.1", "::1"}
    assert seen == {"threads": set(), "dask": {"spawn_main"}, "ray": {"raylet"}}[runner]
    for name in ("results.json", "encoder.safetensors"):
        assert (tmp_path / "mapped" / name).read_bytes() == (plain / name).read_bytes()
    index = json.loads((tmp_path / "mapped" / "train" / "index.json").read_text())
    assert len(index["shardlist"]) == 2


def threads_of_torch() -> int:
    import torch

    return torch.get_num_threads()


def test_what_dask_tells_its_workers_stays_with_them(monkeypatch) -> None:
    """Dask by itself leaves OMP_NUM_THREADS=1 here: every later process would have one thread."""
    pytest.importorskip("prefect_dask")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = {name for name in os.environ if "THREADS" in name}
    with task_runner("dask") as runner:
        assert runner.client.submit(threads_of_torch).result() == 1
    assert {name for name in os.environ if "THREADS" in name} == before
