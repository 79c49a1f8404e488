"""Shards and features mapped over threads, Dask and Ray: `nox -s flows`."""

import json
import time
from contextlib import suppress
from pathlib import Path
import pytest
from commands import TINY, below, care, environment, options
from listeners import listening

pytestmark = pytest.mark.flows
SMALL = {name: value for name, value in TINY.items() if name not in ("train_scenes", "val_scenes", "labels")}


@pytest.mark.parametrize("runner", ["threads", "dask", "ray"])
def test_the_pieces_of_a_stage_are_done_there_and_give_the_same(tmp_path: Path, runner: str) -> None:
    if runner != "threads":
        pytest.importorskip(f"prefect_{runner}")
    many = options(SMALL | {"train_scenes": 2300, "val_scenes": 40, "labels": (0.01,)})  # three shards
    process = care("pipeline", "run", "--out", tmp_path / "mapped", "--runner", runner, *many, env=environment())
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
    plain = care("pipeline", "run", "--out", tmp_path / "plain", "--plain", *many, env=environment())
    output = plain.communicate()[0]
    assert plain.returncode == 0, output
    for name in ("results.json", "encoder.safetensors"):
        assert (tmp_path / "mapped" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    index = json.loads((tmp_path / "mapped" / "train" / "index.json").read_text())
    assert len(index["shardlist"]) == 3
