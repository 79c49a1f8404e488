"""Linear evaluations that were interrupted, are continued, or cannot go on."""

import multiprocessing
import os
import shutil
import signal
import numpy as np
import pytest
import torch
from classifying import (
    SETTINGS,
    STEPS,
    crash,
    judge,
    make_encoder,
    result,
)
import shards
from care import CareError
from care.train import Stopped, mirror
from shards import storage


def test_an_encoder_that_changes_is_an_error(encoder, train, val, tmp_path, at_step):
    at_step([7], lambda: encoder.model[1].running_mean.add_(1e-6))
    with pytest.raises(CareError, match="the encoder has changed under a linear evaluation"):
        judge(encoder, train, val, tmp_path, **SETTINGS)


@pytest.mark.parametrize(("step", "workers"), [(0, 0), (9, 1), (19, 0)])
def test_a_run_that_was_killed_ends_with_the_same_bits(
    whole, train, val, tmp_path, at_step, step, workers
):
    at_step([step], lambda: os.kill(os.getpid(), signal.SIGKILL))
    settings = SETTINGS | {"workers": workers}
    child = multiprocessing.get_context("fork").Process(
        target=judge, args=(make_encoder(), train, val, tmp_path), kwargs=settings
    )
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    at_step([], crash)
    torch.rand(3)
    assert judge(make_encoder(), train, val, tmp_path, **SETTINGS) == whole[1]
    assert result(tmp_path) == result(whole[0])


def test_a_finished_run_only_scores(whole, encoder, train, val, tmp_path, at_step):
    run = shutil.copytree(whole[0], tmp_path / "run")
    at_step(range(STEPS), crash)
    assert judge(encoder, train, val, run, **SETTINGS) == whole[1]
    assert result(run) == result(whole[0])


def test_a_request_to_stop_saves_and_the_same_call_continues(
    whole, encoder, train, val, tmp_path, at_step
):
    at_step([7], lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(
        Stopped, match="stopped on request after step 8 of 20 and saved; the same command continues"
    ):
        judge(encoder, train, val, tmp_path, **SETTINGS)
    assert encoder.training
    at_step(range(8), crash)
    assert judge(encoder, train, val, tmp_path, **SETTINGS) == whole[1]
    assert result(tmp_path) == result(whole[0])


def test_a_run_at_a_url_that_was_stopped_continues_on_another_machine(
    whole, encoder, train, val, machine, url, at_step
):
    at_step([7], lambda: os.kill(os.getpid(), signal.SIGTERM))
    machine("first")
    with pytest.raises(Stopped, match="stopped on request after step 8 of 20 and saved"):
        judge(encoder, train, val, url, **SETTINGS)
    at_step(range(8), crash)
    machine("second")
    assert judge(encoder, train, val, url, **SETTINGS) == whole[1]
    assert result(mirror.local_copy(url)) == result(whole[0])
    assert storage.read_bytes(f"{url}/losses.jsonl") == (whole[0] / "losses.jsonl").read_bytes()
    at_step(range(STEPS), crash)
    machine("third")
    assert judge(encoder, train, val, url, **SETTINGS) == whole[1]


CHANGES = {
    "size": 40,
    "lrs": (0.5, 8.0),
    "epochs": 6,
    "batch_size": 6,
    "norm": True,
    "min_scale": 0.2,
    "held_out": 0.3,
    "seed": 1,
    "precision": "bf16",
}


@pytest.mark.parametrize("field", CHANGES)
def test_other_settings_are_refused_by_name(whole, encoder, train, val, field):
    before, name = (
        result(whole[0]),
        {"epochs": "steps", "batch_size": "batch_size|steps"}.get(field, field),
    )
    with pytest.raises(
        CareError,
        match=rf"was trained with ({name})=.*; this call has ({name})=.*; repeat the first call's",
    ):
        judge(encoder, train, val, whole[0], **SETTINGS | {field: CHANGES[field]})
    assert result(whole[0]) == before


def test_another_encoder_and_other_data_are_refused_by_name(whole, encoder, train, val):
    for name, args in (
        ("encoder", (make_encoder(1), train, val)),
        ("data", (encoder, val, val)),
        ("val", (encoder, train, train)),
    ):
        with pytest.raises(CareError, match=f"was trained with {name}="):
            judge(*args, whole[0], **SETTINGS)


def test_sets_that_cannot_be_learned_from_are_refused_before_anything_is_read(
    encoder, train, val, data, reads, tmp_path
):
    with pytest.raises(CareError, match=r"classes that .* does not have"):
        judge(encoder, train, data, tmp_path / "run", **SETTINGS)
    for share in (0, 0.01, 1):
        with pytest.raises(
            CareError, match=f"cannot hold {share:.0%} of 42 training images out; use a larger set"
        ):
            judge(encoder, train, val, tmp_path / "run", **SETTINGS, held_out=share)
    train.labels = np.full(42, -1, np.int32)
    for fast in (False, True):
        with pytest.raises(CareError, match="train has no image with a class"):
            judge(encoder, train, val, tmp_path / "run", **SETTINGS, fast=fast)
    assert not reads
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_sample_stops_it(encoder, data, damaged_set, tmp_path, workers):
    with pytest.raises(
        shards.ShardError, match=r"sample 13 .*shard-000001\.tar is damaged"
    ) as caught:
        judge(encoder, shards.open(damaged_set), data, tmp_path, **SETTINGS, workers=workers)
    assert "\n" not in str(caught.value)
    assert encoder.training
