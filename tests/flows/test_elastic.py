"""A pipeline's training goes on with another number of processes: `nox -s flows`."""

import json
import signal
from pathlib import Path
import pytest
from commands import TINY, care, environment, options, until

pytestmark = pytest.mark.flows
STEPS = 8
SETTINGS = {**TINY, "steps": STEPS, "batch_size": 12, "evaluate": ("knn",)}


def start(out: Path, nproc: int):
    arguments = ("pipeline", "run", "--out", out, "--plain", "--no-t-stream", "--nproc", nproc)
    return care(*arguments, *options(SETTINGS), env=environment(OMP_NUM_THREADS="1"))


def lines(out: Path) -> list[dict[str, float]]:
    logs = list(out.glob("stages/pretrain-????????/losses.jsonl"))
    return [json.loads(line) for log in logs for line in log.read_text().splitlines()]


@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 3)])
def test_the_same_command_with_another_nproc_goes_on(tmp_path, first, second) -> None:
    process = start(tmp_path / "elastic", first)
    until(lambda: 2 < len(lines(tmp_path / "elastic")) < STEPS, 200, "three steps")
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 3, output
    steps_before = len(lines(tmp_path / "elastic"))
    process = start(tmp_path / "elastic", second)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert steps_before < STEPS
    process = start(tmp_path / "one", 1)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    # one stage, whose steps are all there once, of the same batches
    assert len(list((tmp_path / "elastic").glob("stages/pretrain-????????"))) == 1
    assert len(lines(tmp_path / "elastic")) == STEPS
    for row, wanted in zip(lines(tmp_path / "elastic"), lines(tmp_path / "one"), strict=True):
        assert row == pytest.approx(wanted, rel=1e-3, abs=1e-5)
