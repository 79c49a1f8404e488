import os
import signal
import socket
import subprocess
import time
from types import SimpleNamespace
import pytest
import torch
from commands import fork
from flows import child
from flows.outcomes import (
    Outcome,
    error_of,
    format_outcome,
    format_pid,
    outcome_of,
    parse_line,
)
from flows.supervise import GRACE_SECONDS, Children
from shards.errors import Failure, Misuse, ShardError, Stopped, StoreError


class Origin:
    """The process that the stages' processes are forked from, on a machine with so many GPUs."""

    def __init__(self, gpus):
        self.gpus = gpus

    def recv(self, _):
        return bytes([self.gpus])

    def close(self):
        pass


def slots(monkeypatch, gpus, cores, **given):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr("shards.cores.cgroup_quota", lambda: None)
    monkeypatch.setattr(Children, "_start_origin", lambda _: None)  # which needs seconds
    children = Children(**given)
    children._connection = Origin(gpus)
    children._origin = SimpleNamespace(kill=lambda: None, wait=lambda: None)
    found = [children._take_slot()] + [
        children._slots.get() for _ in range(children._slots.qsize())
    ]
    children.stop()
    return found


def test_stages_share_a_machine(monkeypatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert slots(monkeypatch, 0, 16) == [{"CARE_CORES": "4"}] * 4
    assert slots(monkeypatch, 0, 2, jobs=-1) == [{"CARE_CORES": "1"}] * 2
    assert slots(monkeypatch, 0, 1) == [{"CARE_CORES": "1"}]
    assert slots(monkeypatch, 0, 2, jobs=3) == [{"CARE_CORES": "1"}] * 3
    shared = [{"CARE_CORES": "5", "CUDA_VISIBLE_DEVICES": number} for number in "010"]
    assert slots(monkeypatch, 2, 16, jobs=3) == shared
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    shared = [{"CARE_CORES": "8", "CUDA_VISIBLE_DEVICES": number} for number in "53"]
    assert slots(monkeypatch, 2, 16) == shared


def test_a_container_share_of_a_machine_is_what_its_stages_share(monkeypatch) -> None:
    monkeypatch.setenv("CARE_CORES", "8")
    assert slots(monkeypatch, 0, 64) == [{"CARE_CORES": "2"}] * 4


@pytest.mark.parametrize(
    ("slot", "omp", "threads"),
    [({"CARE_CORES": "3"}, None, 3), ({"CARE_CORES": "3"}, "2", 2), ({}, None, 4), ({}, "1", 1)],
)
def test_a_stage_computes_with_its_share_or_as_omp_num_threads_says(
    monkeypatch, slot, omp, threads
) -> None:
    chosen = []
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr("shards.cores.cgroup_quota", lambda: 3.5)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr("flows.pieces.do_piece", lambda: None)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if omp:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    assert child._do("piece", (), slot) == ("done", "")
    assert chosen == [threads]


@pytest.mark.parametrize(
    ("error", "state", "kind"),
    [
        (Stopped("saved"), "stopped", Failure),
        (KeyboardInterrupt(), "stopped", Failure),
        (StoreError("gone"), "store", Failure),
        (Misuse("wanted 1"), "usage", Misuse),
        (ShardError("torn"), "failed", Failure),
        (OSError("no space"), "failed", Failure),
        (KeyError("row"), "bug", RuntimeError),
    ],
)
def test_an_error_there_is_an_error_here(error, state, kind) -> None:
    outcome = parse_line(format_outcome(outcome_of(error)))
    assert outcome.state == state
    assert type(error_of(outcome)) is kind
    assert (str(error) or "stopped on request") in outcome.message


def test_a_line_of_a_stage_is_no_message() -> None:
    assert parse_line("training: 1/2") is None
    assert parse_line(format_pid(17)) == 17


def follow(lines: list[bytes], **given) -> tuple[Outcome, list[str]]:
    """What is made of the lines of a process whose end is closed after them."""
    children = Children(**given)
    ours, other_end = socket.socketpair()
    with ours, other_end:
        for line in lines:
            other_end.sendall(line)
        other_end.close()
        heard = []
        outcome = children._follow(ours, heard.append)
    children.stop()
    return outcome, heard


def test_a_process_that_ends_without_a_word_died() -> None:
    outcome, heard = follow([b"a\n\xff", b"\nunfinished"])
    assert outcome == ("died", "its process died")
    assert heard == ["a", "\N{REPLACEMENT CHARACTER}"]


def test_what_a_process_says_of_its_end_counts() -> None:
    done = Outcome("done", "")
    lines = [b"a\n", format_outcome(done).encode(), b"\nb\n"]
    assert follow(lines) == (done, ["a", "b"])


def test_a_stage_that_is_stopped_before_it_has_read_its_work_leaves_no_traceback() -> None:
    ours, other = socket.socketpair()
    process = fork(child._be_stage, other.fileno())
    other.close()
    with ours, ours.makefile() as lines:
        assert parse_line(lines.readline().rstrip("\n")) == process.pid
        process.terminate()
        process.join(60)
        assert process.exitcode == -signal.SIGTERM
        assert lines.read() == ""


def test_who_no_longer_listens_does_not_delay_the_end() -> None:
    children = Children()
    ours, other_end = socket.socketpair()
    process = subprocess.Popen(["sleep", "0"])
    process.wait()

    def closed_pipe(_: str) -> None:
        raise BrokenPipeError

    with ours, other_end:
        other_end.sendall(f"{format_pid(process.pid)}\nline\n".encode())
        with pytest.raises(BrokenPipeError):
            children._follow(ours, closed_pipe)
    began = time.monotonic()
    children.stop()
    assert time.monotonic() - began < GRACE_SECONDS / 2
