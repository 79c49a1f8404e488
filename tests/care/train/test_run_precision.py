"""Runs in reduced precision, and in which one a run goes on."""

import json
from contextlib import nullcontext
import pytest
import torch
from flat import gathered
from small_runs import SETTINGS, CrashError, crash, make_streams, rows, train
from care import (
    CareError,
    lr_at,
)
from care.train import checkpoint, load_encoder, pretrain
from care.train import precision as precision_module
from care.train.precision import StreamPrecisions


def test_reduced_precision_starts_from_the_same_losses(whole, data, tmp_path):
    train(data, tmp_path, precision="bf16", steps=1)
    first, reduced = rows(whole)[0], rows(tmp_path)[0]
    for name in ("cnn", "transformer", "spread"):
        assert reduced[name] == pytest.approx(first[name], rel=0.1)
        assert reduced[name] != first[name]


@pytest.fixture
def scaled(monkeypatch):
    """Precision "fp16" scales losses, but computes in float32.

    Some CPUs need minutes for a step in float16.
    """
    monkeypatch.setattr("care.train.step.autocast", lambda *_: nullcontext())


def continued_at_scale(data, run, at_step, scale, steps):
    """A half-precision run that crashed after a step, and went on with another loss scale."""
    settings = {
        **SETTINGS,
        "precision": "fp16",
        "batch_size": 2,
        "steps": steps,
        "checkpoint_every": 1,
    }
    at_step(1, crash)
    with pytest.raises(CrashError):
        pretrain(data, run, make_streams()[0], **gathered(settings))
    at_step(None, crash)
    manifest = run / "checkpoints" / "step-00000001" / "manifest.json"
    content = json.loads(manifest.read_text())
    assert content["scaler"]["scale"] > 0
    content["scaler"]["scale"] = scale
    del content["own"]
    manifest.write_text(json.dumps(content))
    pretrain(data, run, make_streams()[0], **gathered(settings))
    return checkpoint.latest(run).manifest["scaler"]["scale"]


def test_the_loss_scale_is_saved_and_comes_back(data, tmp_path, at_step):
    assert continued_at_scale(data, tmp_path, at_step, 64.0, steps=2) == 64.0


def test_a_run_may_go_on_in_half_precision(data, tmp_path, at_step, scaled):
    settings = {**SETTINGS, "batch_size": 2, "steps": 2, "checkpoint_every": 1}
    at_step(1, crash)
    with pytest.raises(CrashError):
        pretrain(data, tmp_path, make_streams()[0], **gathered(settings))
    at_step(None, crash)
    half = {**settings, "precision": "fp16", "allow_change": ["precision"]}
    pretrain(data, tmp_path, make_streams()[0], **gathered(half))
    assert checkpoint.latest(tmp_path).manifest["scaler"]["scale"] > 0


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [({"avx512_bf16": True}, "bf16"), ({"avx2": True}, "fp32"), ({}, "fp32")],
)
def test_the_precision_of_a_cpu_is_what_it_computes_natively(monkeypatch, capabilities, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert precision_module.fastest_precision(torch.device("cpu")) == precision


def test_a_step_whose_half_precision_gradients_overflow_is_tried_again(
    data, tmp_path, at_step, scaled
):
    assert continued_at_scale(data, tmp_path, at_step, 2.0**127, steps=3) < 2.0**127
    lines = rows(tmp_path)
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert [line["lr"] for line in lines] == [
        lr_at(n, total=3, base=0.05 * 2 / 256, warmup=2) for n in range(3)
    ]


def test_a_first_step_that_overflows_leaves_no_trace(data, tmp_path, monkeypatch, scaled):
    settings = {**SETTINGS, "precision": "fp16", "batch_size": 2, "steps": 2}
    scaler, empty_like = torch.amp.GradScaler, torch.empty_like
    monkeypatch.setattr(
        torch,
        "empty_like",
        lambda *args, **options: empty_like(*args, **options).fill_(float("nan")),
    )
    for name, scale in (("calm", 16.0), ("overflowing", 2.0**127)):
        monkeypatch.setattr(
            torch.amp,
            "GradScaler",
            lambda *args, scale=scale, **options: scaler(*args, init_scale=scale, **options),
        )
        pretrain(data, tmp_path / name, make_streams()[0], **gathered(settings))
    calm, overflowing = (
        load_encoder(tmp_path / name).conv1.weight for name in ("calm", "overflowing")
    )
    torch.testing.assert_close(calm, overflowing, rtol=1e-3, atol=1e-4)


def test_gradients_that_overflow_at_any_scale_stop_the_run(data, tmp_path, scaled):
    c, _ = make_streams()
    c.backbone.online.conv1.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(
        CareError, match="the gradients are not finite at step 0, whatever the loss scale"
    ):
        pretrain(data, tmp_path, c, **gathered({**SETTINGS, "precision": "fp16", "batch_size": 2}))
    assert not (tmp_path / "checkpoints").exists()


def test_a_run_goes_on_in_the_precisions_it_began_in(data, tmp_path, at_step, monkeypatch):
    began_in = StreamPrecisions("fp32", "bf16")
    monkeypatch.setattr(
        "care.train.measured_precision.measured_precisions", lambda *_, **__: began_in
    )
    at_step(3, crash)
    with pytest.raises(CrashError):
        train(data, tmp_path, precision=None)
    at_step(None, crash)
    monkeypatch.setattr(
        "care.train.measured_precision.measured_precisions", crash
    )  # here others would be faster
    train(data, tmp_path, precision=None)
    settings = checkpoint.latest(tmp_path).manifest["settings"]
    assert (settings["precision"], settings["t_precision"]) == began_in
    with pytest.raises(CareError, match="was trained with t_precision=bf16; this call has t_prec"):
        train(data, tmp_path, precision="fp32")


def test_a_precision_that_this_machine_cannot_compute_is_not_taken_over(
    data, tmp_path, at_step, monkeypatch, scaled
):
    half = {"precision": "fp16", "batch_size": 2, "steps": 2, "checkpoint_every": 1}
    at_step(1, crash)
    with pytest.raises(CrashError):
        pretrain(data, tmp_path, make_streams()[0], **gathered(SETTINGS | half))
    at_step(None, crash)
    run_of_another_machine = {**SETTINGS, **half, "precision": None}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_fp16": False})
    with pytest.raises(CareError, match=r"precision=fp16.*allow the change"):
        pretrain(data, tmp_path, make_streams()[0], **gathered(run_of_another_machine))
