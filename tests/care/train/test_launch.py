"""Processes that `torchrun` starts: they meet again after a death.

None of them can be reached from another machine.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
import pytest
from listeners import listening

MEMBER = """
import json, os, signal, sys
from pathlib import Path
import torch, torch.distributed as dist
from care.train.launch import process_group
from listeners import listening

run = Path(sys.argv[1])
deaths = int(sys.argv[2])
attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
rank = int(os.environ["RANK"])
with process_group(run):
    total = torch.tensor([rank + 1.0])
    dist.all_reduce(total)
    addresses = {"mine": sorted(listening(os.getpid())), "starter": sorted(listening(os.getppid()))}
    report = {**addresses, "total": float(total)}
    (run / f"{attempt}-{rank}.report").write_text(json.dumps(report))
    dist.barrier()
    if attempt < deaths and rank == attempt % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()
if rank == 0:
    (run / "status.json").write_text('{"state": "done", "message": ""}')
"""
START = """
import sys
from care.train.launch import torchrun

torchrun(sys.argv[1], 2, sys.argv[1:], module="member")
"""


@pytest.mark.resume
@pytest.mark.parametrize("deaths", [0, 1, 3])
def test_after_a_death_they_meet_again_and_listen_to_this_machine_only(tmp_path, deaths):
    run, temporary = tmp_path / "run", tmp_path / "temporary"
    run.mkdir()
    temporary.mkdir()
    (tmp_path / "member.py").write_text(MEMBER)
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    environment = os.environ | {"PYTHONPATH": paths, "TMPDIR": str(temporary)}
    environment.pop("GLOO_SOCKET_IFNAME", None)
    command = [sys.executable, "-c", START, str(run), str(deaths)]
    done = subprocess.run(
        command, env=environment, stderr=subprocess.PIPE, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    reports = {path.stem: json.loads(path.read_text()) for path in run.glob("*.report")}
    attempts = range(deaths + 1)
    assert sorted(reports) == [f"{attempt}-{rank}" for attempt in attempts for rank in range(2)]
    expected = {"mine": ["127.0.0.1"], "starter": [], "total": 3.0}
    assert all(report == expected for report in reports.values()), reports
    ours = ("care-", "torchelastic")
    assert [path.name for path in temporary.iterdir() if path.name.startswith(ours)] == []


def test_the_probe_sees_sockets_that_listen_everywhere():
    for family, address in (
        (socket.AF_INET, "0.0.0.0"),
        (socket.AF_INET6, "::"),
        (socket.AF_INET, "127.0.0.2"),
        (socket.AF_INET6, "::1"),
    ):
        with socket.socket(family) as opened:
            opened.bind((address, 0))
            assert address not in listening(os.getpid())
            opened.listen()
            assert address in listening(os.getpid())
