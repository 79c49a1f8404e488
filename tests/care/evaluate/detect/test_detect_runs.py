"""Runs of a detector that were interrupted, are continued or asked for other settings."""

import os
import shutil
import signal
import pytest
import torch
from detecting import (
    SETTINGS,
    STEPS,
    CrashError,
    crash,
    judge,
    make_encoder,
    result,
    rows,
    saved,
    train,
)
from care import CareError
from care.train import Stopped, mirror
from shards import storage


@pytest.mark.parametrize(
    ("step", "workers"), [pytest.param(0, 0, marks=pytest.mark.resume), (3, 1), (5, 0)]
)
def test_a_run_that_crashed_ends_with_the_same_bits(whole, sets, tmp_path, at_step, step, workers):
    at_step([step], crash)
    with pytest.raises(CrashError):
        train(sets, tmp_path, workers=workers)
    assert len(rows(tmp_path)) == step
    at_step([], crash)
    torch.rand(3)
    assert train(sets, tmp_path, workers=1 - workers) == whole[1]
    assert result(tmp_path) == result(whole[0])


def test_a_finished_run_only_scores(whole, sets, tmp_path, at_step):
    run = shutil.copytree(whole[0], tmp_path / "run")
    for step in range(STEPS):
        at_step([step], crash)
    assert train(sets, run) == whole[1]
    assert result(run) == result(whole[0])


def test_a_request_to_stop_saves_and_the_same_call_continues(whole, sets, tmp_path, at_step):
    at_step([2], lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(
        Stopped, match="stopped on request after step 3 of 6 and saved; the same command continues"
    ):
        train(sets, tmp_path, checkpoint_every=100)
    assert saved(tmp_path) == ["step-00000003"]
    at_step([], crash)
    assert train(sets, tmp_path, checkpoint_every=100) == whole[1]
    assert result(tmp_path) == result(whole[0])


def test_a_run_at_a_url_that_was_stopped_continues_on_another_machine(
    whole, sets, machine, url, at_step
):
    at_step([2], lambda: os.kill(os.getpid(), signal.SIGTERM))
    machine("first")
    with pytest.raises(Stopped, match="stopped on request after step 3 of 6 and saved"):
        train(sets, url, checkpoint_every=100)
    at_step([0, 1, 2], crash)
    machine("second")
    assert train(sets, url, checkpoint_every=100) == whole[1]
    assert result(mirror.local_copy(url)) == result(whole[0])
    assert storage.read_bytes(f"{url}/losses.jsonl") == (whole[0] / "losses.jsonl").read_bytes()


CHANGES = {
    "head": "fpn",
    "mask": False,
    "size": 40,
    "iterations": 8,
    "batch_size": 6,
    "lr": 0.1,
    "warmup": 1,
    "weight_decay": 0.0,
    "proposals": 9,
    "anchor_scale": 3,
    "channels": 4,
    "hidden": 8,
    "seed": 1,
    "precision": "bf16",
}


@pytest.mark.parametrize("field", CHANGES)
def test_other_settings_are_refused_by_name(whole, sets, field):
    before = result(whole[0])
    name = {"iterations": "steps"}.get(field, field)
    with pytest.raises(
        CareError,
        match=rf"was trained with {name}=.*; this call has {name}={CHANGES[field]}; repeat the "
        "first call's",
    ):
        train(sets, whole[0], **{field: CHANGES[field]})
    assert result(whole[0]) == before


def test_another_encoder_and_other_data_are_refused_by_name(whole, sets):
    with pytest.raises(CareError, match="was trained with encoder="):
        judge(make_encoder(1), *sets, whole[0], **SETTINGS)
    with pytest.raises(CareError, match="was trained with data="):
        train((sets[1], sets[1]), whole[0])
