"""Runs that crash, are killed or stopped, and go on to the same bits."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import threading
from pathlib import Path
import pytest
import torch
from flat import gathered
from small_runs import SETTINGS, STEPS, CrashError, crash, make_streams, result, saved, train
from torch import nn
import shards
from care import (
    BYOL,
    CMC,
    PIRL,
    BarlowTwins,
    BYOLViT,
    CareError,
    CStream,
    InfoMin,
    MoCoV1,
    MoCoV2,
    MoCoV3,
    MoCoV3ViT,
    MomentumPair,
    SimCLR,
    SimSiam,
    SwAV,
    TappedEncoder,
    c_stream_for,
)
from care.objectives.by_name import OBJECTIVES
from care.train import Stopped, checkpoint, pretrain
from care.train.recipes import RECIPES, recipe_optimizer, recipe_views
from shards import storage


@pytest.mark.parametrize(
    ("step", "workers"),
    [
        pytest.param(0, 0, marks=pytest.mark.resume),
        pytest.param(1, 0, marks=pytest.mark.resume),
        pytest.param(3, 1, marks=pytest.mark.resume),
        (5, 0),
    ],
)
def test_a_run_that_crashed_ends_with_the_same_bits(whole, data, tmp_path, at_step, step, workers):
    at_step(step, crash)
    with pytest.raises(CrashError):
        train(data, tmp_path)
    assert not (tmp_path / "encoder.safetensors").exists()
    at_step(None, crash)
    torch.rand(3)
    train(data, tmp_path, workers=workers)
    assert result(tmp_path) == result(whole)


# small ones of every objective; of those without a mark the criterion keeps something
OBJECTIVES_BY_NAME = {
    "moco-v2": MoCoV2(hidden=32, dim=16, queue=32),
    "swav": SwAV(hidden=32, dim=16, prototypes=12, frozen_steps=4, queue=16),
    "swav-256": SwAV(hidden=32, dim=16, prototypes=12, queue=16, queue_from=1),
    "byol": BYOL(hidden=32),
    "simsiam": SimSiam(hidden=32, dim=16, bottleneck=8),
    "simclr": SimCLR(hidden=32, dim=16),
    "moco-v1": MoCoV1(hidden=32, dim=16, queue=32),
    "moco-v3": MoCoV3(hidden=32, dim=16),
    "barlow-twins": BarlowTwins(hidden=32, dim=16),
    "infomin": InfoMin(hidden=32, dim=16, queue=16),
    "pirl": PIRL(hidden=32, dim=16, images=24, negatives=9),
    "pirl-pycontrast": PIRL(hidden=32, dim=16, images=24, contrast="softmax"),
    "cmc": CMC(hidden=32, dim=16, images=24, negatives=9),
    "byol-vit": BYOLViT(hidden=32, dim=16),
    "moco-v3-vit": MoCoV3ViT(hidden=32, dim=16),
}
KEEPING = ("moco-v2",)


def trained_by_recipe(name, data, path):
    """What the criterion keeps after a tiny run by the recipe of an objective."""
    recipe = RECIPES[name]
    objective = OBJECTIVES_BY_NAME[name]
    encoder = "lab:resnet18-small-half" if name == "cmc" else "resnet18-small-half"
    c, t = make_streams(encoder=encoder, objective=objective)
    if name.endswith("-vit"):
        c, t = c_stream_for("vit-tiny8", objective=objective), None
    settings = gathered(SETTINGS) | {
        "optimizer": recipe_optimizer(recipe, warmup=2),
        "momentum": recipe.momentum,
        "momentum_rises": recipe.momentum_rises,
        "views": recipe_views(recipe, size=SETTINGS["size"]),
    }
    pretrain(data, path, c, t, **settings)
    return {name: tensor.clone() for name, tensor in c.criterion.state_dict().items()}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in KEEPING else pytest.mark.resume)
        for name in OBJECTIVES_BY_NAME
    ],
)
def test_every_objective_resumes_in_an_epoch_to_the_same_bits(name, data, tmp_path, at_step):
    unbroken = trained_by_recipe(name, data, tmp_path / "unbroken")
    at_step(3, crash)  # the last checkpoint is that of step 2, an epoch has 3
    with pytest.raises(CrashError):
        trained_by_recipe(name, data, tmp_path / "broken")
    at_step(None, crash)
    state = trained_by_recipe(name, data, tmp_path / "broken")
    assert state.keys() == unbroken.keys()
    assert all(torch.equal(state[name], unbroken[name]) for name in state)
    assert result(tmp_path / "broken") == result(tmp_path / "unbroken")


def test_every_objective_is_among_those_that_resume():
    assert {*OBJECTIVES_BY_NAME} == {*RECIPES}
    for name, objective in OBJECTIVES_BY_NAME.items():
        assert type(objective) is type(OBJECTIVES[name])


def test_networks_that_draw_random_numbers_resume_to_the_same_bits(
    data, tmp_path, at_step, untouched_generator
):
    def run(path, drawn):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, 4, 1),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        c = CStream(MomentumPair(TappedEncoder(model, "0")), BYOL(hidden=16))
        torch.manual_seed(drawn)  # whatever the program drew before
        with untouched_generator():
            pretrain(data, path, c, **gathered(SETTINGS))

    run(tmp_path / "whole", 1)
    at_step(3, crash)
    with pytest.raises(CrashError):
        run(tmp_path / "crashed", 2)
    at_step(None, crash)
    run(tmp_path / "crashed", 3)
    assert result(tmp_path / "crashed") == result(tmp_path / "whole")


@pytest.mark.resume
def test_a_run_that_was_killed_outright_ends_with_the_same_bits(whole, data, tmp_path, at_step):
    at_step(3, lambda: os.kill(os.getpid(), signal.SIGKILL))
    child = multiprocessing.get_context("fork").Process(target=train, args=(data, tmp_path))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert saved(tmp_path) == ["step-00000002"]
    at_step(None, crash)
    train(data, tmp_path)
    assert result(tmp_path) == result(whole)
    timing = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert [row["step"] for row in timing] == list(range(STEPS))


def test_logs_have_whole_lines_while_the_run_goes_on(data, tmp_path, at_step):
    seen = {}
    at_step(
        5,
        lambda: seen.update(
            {name: (tmp_path / name).read_text() for name in ("losses.jsonl", "timing.jsonl")}
        ),
    )
    train(data, tmp_path)
    for text in seen.values():
        assert text.endswith("\n")
        assert [json.loads(line)["step"] for line in text.splitlines()] == list(range(5))


def test_a_damaged_newest_checkpoint_costs_its_steps_and_nothing_else(whole, data, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "encoder.safetensors").unlink()
    os.truncate(run / "checkpoints" / "step-00000006" / "model.safetensors", 1000)
    train(data, run)
    assert result(run) == result(whole)
    assert saved(run) == ["step-00000004", "step-00000006"]
    assert checkpoint.latest(run).step == 6


def test_going_on_verifies_the_newest_checkpoint_once(whole, data, tmp_path, monkeypatch):
    run = shutil.copytree(whole, tmp_path / "run")
    sha256 = storage.sha256
    verified = []
    monkeypatch.setattr(storage, "sha256", lambda path: verified.append(path) or sha256(path))
    train(data, run, precision=None)
    newest = run / "checkpoints" / "step-00000006"
    assert sorted(verified) == [newest / "model.safetensors", newest / "optimizer.safetensors"]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.resume)]
)
def test_a_request_to_stop_saves_and_the_same_call_continues(
    whole, data, tmp_path, at_step, number
):
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    at_step(2, lambda: os.kill(os.getpid(), number))
    with pytest.raises(
        Stopped, match="stopped on request after step 3 of 6 and saved; the same command continues"
    ):
        train(data, tmp_path, checkpoint_every=100)
    assert saved(tmp_path) == ["step-00000003"]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    at_step(None, crash)
    train(data, tmp_path, checkpoint_every=100)
    assert result(tmp_path) == result(whole)


def test_a_request_to_stop_in_the_last_step_lets_the_run_finish(whole, data, tmp_path, at_step):
    at_step(STEPS - 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    train(data, tmp_path)
    assert result(tmp_path) == result(whole)


def test_a_run_outside_the_main_thread(whole, data, tmp_path):
    thread = threading.Thread(target=train, args=(data, tmp_path))
    thread.start()
    thread.join(60)
    assert result(tmp_path) == result(whole)


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(whole, data, tmp_path, monkeypatch):
    fsync = os.fsync

    def full(
        descriptor,
    ):  # from step 4 on: the one before is still being written when its time has come
        if "step-00000004" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        shards.ShardError, match=r"cannot write .*step-00000004.*No space left on device"
    ):
        train(data, tmp_path)
    assert saved(tmp_path) == ["step-00000002"]
    monkeypatch.undo()
    train(data, tmp_path)
    assert result(tmp_path) == result(whole)


def test_a_run_continues_with_the_threads_it_was_started_with(
    whole, data, tmp_path, at_step, monkeypatch
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    at_step(3, crash)
    with pytest.raises(CrashError):
        train(data, tmp_path)
    at_step(None, crash)
    torch.set_num_threads(2)
    try:
        train(data, tmp_path)
        assert torch.get_num_threads() == 2  # those of the caller, as before
        manifest = checkpoint.latest(tmp_path).manifest
        assert manifest["threads"] == 1  # of each view
    finally:
        torch.set_num_threads(1)
    assert result(tmp_path) == result(whole)


def test_a_run_never_takes_more_threads_than_it_may(data, tmp_path, at_step, monkeypatch, capsys):
    at_step(3, crash)
    with pytest.raises(CrashError):
        train(data, tmp_path)
    at_step(None, crash)
    for manifest in tmp_path.glob("checkpoints/*/manifest.json"):
        content = json.loads(manifest.read_text()) | {"threads": 64}
        del content["own"]
        manifest.write_text(json.dumps(content))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    train(data, tmp_path)
    assert torch.get_num_threads() == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "the run had 64 threads, here it has 1: its bits may differ" in told


def test_a_container_quota_limits_the_threads(data, tmp_path, monkeypatch):
    threads = [16]  # what torch has taken of a big machine
    monkeypatch.setattr("shards.cores.cgroup_quota", lambda: 1.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    train(data, tmp_path)
    assert set(threads[1:]) == {1}
    assert checkpoint.latest(tmp_path).manifest["threads"] == 1


def crash_of_ours():
    raise CareError("of ours")


def test_how_a_run_ended_is_recorded(whole, data, tmp_path, at_step):
    def status():
        return json.loads((tmp_path / "status.json").read_text())

    at_step(1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        train(data, tmp_path)
    assert status() == {
        "state": "stopped",
        "message": "stopped on request after step 2 of 6 and saved; the same command continues",
    }
    at_step(2, crash)
    with pytest.raises(CrashError):
        train(data, tmp_path)
    assert status()["state"] == "running"  # to whoever reads it later: it crashed
    with pytest.raises(CareError):  # a call that is refused is no part of the run
        train(data, tmp_path, lr=1.0)
    assert status()["state"] == "running"
    at_step(3, crash_of_ours)
    with pytest.raises(CareError):
        train(data, tmp_path)
    assert status() == {"state": "failed", "message": "of ours"}
    at_step(None, crash)
    train(data, tmp_path)
    assert status() == {"state": "done", "message": ""}
    with pytest.raises(CareError):
        train(data, tmp_path, lr=1.0)
    assert status() == {"state": "done", "message": ""}


def test_two_processes_do_not_train_in_one_directory(data, tmp_path, monkeypatch):
    from shards import locks

    monkeypatch.setattr(locks.time, "sleep", lambda seconds: None)
    ticks = iter(range(0, 1000, 5))
    monkeypatch.setattr(locks.time, "monotonic", lambda: next(ticks))
    with (
        locks.exclusive(tmp_path, "training in"),
        pytest.raises(shards.ShardError, match="another process is training in"),
    ):
        train(data, tmp_path)
