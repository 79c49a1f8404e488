"""Every file operation of a save fails once, in every way.

A whole checkpoint can always be loaded, and the next save succeeds.
"""

import errno
import multiprocessing
import os
import resource
import shutil
from pathlib import Path
import pytest
import torch
from torch import nn
from care.train import checkpoint
from shards import ShardError, staging, storage

OPERATIONS = [
    (os, "fsync"),
    (os, "open"),
    (Path, "mkdir"),
    (Path, "open"),
    (Path, "rename"),
    (Path, "replace"),
    (Path, "unlink"),
    (shutil, "rmtree"),
    (checkpoint, "save_file"),
    (storage, "sha256"),
    (staging, "sync"),
]


class Model:
    def __init__(self):
        torch.manual_seed(0)
        self.net = nn.Linear(30, 40)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)

    def at(self, step):
        for p in self.net.parameters():
            nn.init.constant_(p, step)
            self.optimizer.state[p]["momentum_buffer"] = torch.full_like(p, -step)
        return checkpoint.snapshot(self.net, self.optimizer)

    def save(self, run, step):
        checkpoint.save(run, self.at(step), {"step": step, "settings": {}, "scaler": {}}, keep=1)


def watched(monkeypatch, at, fault):
    """Count the operations; the one of number ``at`` is ``fault(operation)``."""
    count = [0]

    def wrapped(original):
        def call(*args, **options):
            count[0] += 1
            if count[0] - 1 == at:
                fault(lambda: original(*args, **options))
            return original(*args, **options)

        return call

    for owner, name in OPERATIONS:
        monkeypatch.setattr(owner, name, wrapped(getattr(owner, name)))
    return count


def fail(number):
    def fault(_operation):
        raise OSError(number, os.strerror(number))

    return fault


def done_and_failed(operation):
    operation()
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def killed(_operation):
    os._exit(9)


def done_and_killed(operation):
    operation()
    os._exit(9)


FAULTS = {
    "ENOSPC": fail(errno.ENOSPC),
    "EIO": fail(errno.EIO),
    "late EIO": done_and_failed,
    "kill": killed,
    "late kill": done_and_killed,
}


def assert_recovers(model, run):
    found = checkpoint.latest(run)
    assert found is not None
    assert found.step in (2, 4)
    checkpoint.restore(found, model.net, model.optimizer)
    assert all(bool((p == found.step).all()) for p in model.net.parameters())
    assert all(
        bool((model.optimizer.state[p]["momentum_buffer"] == -found.step).all())
        for p in model.net.parameters()
    )
    model.save(run, 6)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000006"]


def in_a_child(action):
    process = multiprocessing.get_context("fork").Process(target=action)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize(
    "kind",
    [kind if kind == "kill" else pytest.param(kind, marks=pytest.mark.crash) for kind in FAULTS],
)
def test_every_operation_of_a_save(tmp_path, monkeypatch, kind):
    model = Model()
    model.save(tmp_path / "calm", 2)
    with monkeypatch.context() as patch:
        count = watched(patch, -1, None)
        model.save(tmp_path / "calm", 4)
    assert count[0] > 12
    for at in range(count[0]):
        run = tmp_path / str(at)
        model.save(run, 2)

        def save(run=run, at=at):
            with monkeypatch.context() as patch:
                watched(patch, at, FAULTS[kind])
                try:
                    model.save(run, 4)
                except (ShardError, OSError):
                    os._exit(1)

        assert in_a_child(save) in ((9,) if "kill" in kind else (0, 1))
        assert_recovers(model, run)


@pytest.mark.parametrize("size", [0, 1, 100, 300, 1000, 4000, 5000])
def test_a_file_that_cannot_grow(tmp_path, size):
    model = Model()
    model.save(tmp_path, 2)

    def save():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            model.save(tmp_path, 4)
        except ShardError:
            os._exit(1)

    assert in_a_child(save) == 1
    assert checkpoint.latest(tmp_path).step == 2
    assert_recovers(model, tmp_path)
