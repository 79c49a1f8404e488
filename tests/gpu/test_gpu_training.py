"""Pre-training on a GPU: precisions beside float32, the loss scale, a run that was stopped."""

import json
import math
import signal
from functools import partial
import pytest
import torch
from flat import gathered
from care import BYOL, streams_for
from care.train import LARS, SGD, AdamW, Stopped, checkpoint, load_encoder, pretrain

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
DEVICE = "cuda"
STEPS = 12
SETTINGS = {"size": 64, "batch_size": 16, "steps": STEPS, "warmup": 2, "lr": 0.4, "device": DEVICE}


def train(data, run, **changes):
    """A run from new streams with the same weights; its ``losses.jsonl`` as a list."""
    objective = BYOL(hidden=256)
    c, t = streams_for("resnet18-small-half", size=64, seed=0, blocks=2, objective=objective)
    pretrain(data, run, c, t, **gathered(SETTINGS | changes))
    return losses_of(run)


def losses_of(run):
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


def train_with_a_stop(data, run, step, **changes):
    """Stop a run after ``step`` steps, as Ctrl-C does, and continue; the scaler's state between."""

    def interrupt(encoder):
        signal.raise_signal(signal.SIGINT)
        return {}

    with pytest.raises(Stopped, match=f"stopped on request after step {step} of {STEPS}"):
        train(data, run, probe=interrupt, probe_every=step, **changes)
    scaler = checkpoint.latest(run).manifest["scaler"]
    train(data, run, **changes)
    return scaler


@pytest.fixture(scope="module")
def in_float32(data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp("fp32"), precision="fp32")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_as_float32_does(data, tmp_path, in_float32, precision):
    losses = train(data, tmp_path, precision=precision)
    totals = [line["total"] for line in losses]
    assert all(map(math.isfinite, totals))
    assert sum(totals[-4:]) < sum(totals[:4])
    # eight bits of mantissa in some fifty layers: per cents at first; later the runs part a little
    for single, half in zip(in_float32, losses, strict=True):
        assert half["cnn"] == pytest.approx(single["cnn"], rel=0.05 if half["step"] == 0 else 0.2)
        assert half["spread"] == pytest.approx(single["spread"], rel=0.2)


def test_float32_trains(in_float32):
    totals = [line["total"] for line in in_float32]
    assert sum(totals[-4:]) < sum(totals[:4])


def test_the_fastest_precision_is_the_default(data, tmp_path):
    train(data, tmp_path, steps=1)
    wanted = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    assert checkpoint.latest(tmp_path).manifest["settings"]["precision"] == wanted


@pytest.mark.parametrize(
    ("precision", "optimizer"),
    [
        ("fp32", SGD(lr=0.4, warmup=2)),
        ("bf16", SGD(lr=0.4, warmup=2)),
        ("fp16", SGD(lr=0.4, warmup=2)),
        ("fp32", LARS(lr=0.4, warmup=2)),
        ("fp16", LARS(lr=0.4, warmup=2)),
        ("fp32", AdamW(lr=0.001, warmup=2)),
        ("fp16", AdamW(lr=0.001, warmup=2)),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_stopped_run_has_the_losses_of_a_whole_one(data, tmp_path, exact, precision, optimizer):
    changes = {"precision": precision, "optimizer": optimizer}
    whole = train(data, tmp_path / "whole", **changes)
    train_with_a_stop(data, tmp_path / "stopped", 5, **changes)
    stopped = losses_of(tmp_path / "stopped")
    assert [line["step"] for line in stopped] == list(range(STEPS))
    # deterministic kernels should give equal bits; a cuBLAS that adds in another order may not,
    # and a step's rounding grows in the next ones
    tolerance = 1e-4 if precision == "fp32" else 1e-2
    for before, after in zip(whole, stopped, strict=True):
        for term in ("cnn", "transformer", "total", "spread"):
            assert after[term] == pytest.approx(before[term], rel=tolerance), after["step"]


def test_the_loss_scale_goes_on_where_it_was(data, tmp_path, exact):
    between = train_with_a_stop(data, tmp_path, 5, precision="fp16", warmup=0)
    after = checkpoint.latest(tmp_path).manifest["scaler"]
    assert between["scale"] > 0
    if after["scale"] == between["scale"]:  # nothing overflowed since
        assert after["_growth_tracker"] == between["_growth_tracker"] + STEPS - 5


def test_a_restored_scaler_is_the_saved_one(data, tmp_path, monkeypatch):
    small = partial(torch.amp.GradScaler, init_scale=64.0, growth_interval=10_000)
    monkeypatch.setattr(torch.amp, "GradScaler", small)
    between = train_with_a_stop(data, tmp_path, 5, precision="fp16")
    assert (between["scale"], between["_growth_tracker"]) == (64.0, 5)
    monkeypatch.undo()
    train(data, tmp_path, precision="fp16", steps=STEPS + 1, allow_change=["steps"])
    after = checkpoint.latest(tmp_path).manifest["scaler"]
    assert (after["scale"], after["_growth_tracker"]) == (64.0, STEPS + 1)


def test_first_steps_that_overflow_leave_no_trace(data, tmp_path, monkeypatch, exact):
    losses, scaler = {}, torch.amp.GradScaler
    for name, scale in (("calm", 1024.0), ("overflowing", 2.0**127)):
        monkeypatch.setattr(torch.amp, "GradScaler", partial(scaler, init_scale=scale))
        losses[name] = train(data, tmp_path / name, precision="fp16", steps=4)
    assert 0 < checkpoint.latest(tmp_path / "overflowing").manifest["scaler"]["scale"] < 2.0**127
    for calm, overflowing in zip(losses["calm"], losses["overflowing"], strict=True):
        assert overflowing["total"] == pytest.approx(calm["total"], rel=0.05)


def test_parts_of_a_batch_train_as_well(data, tmp_path):
    losses = train(data, tmp_path, precision="bf16", accumulate=2, workers=2, steps=3)
    assert all(math.isfinite(line["total"]) for line in losses)


def test_training_leaves_the_devices_generator_as_it_was(data, tmp_path):
    before = torch.cuda.get_rng_state() if DEVICE == "cuda" else torch.get_rng_state()
    train(data, tmp_path, steps=2)
    after = torch.cuda.get_rng_state() if DEVICE == "cuda" else torch.get_rng_state()
    assert torch.equal(before, after)


def test_the_encoder_comes_back_on_the_cpu(data, tmp_path):
    train(data, tmp_path, steps=2)
    from_run, from_file = load_encoder(tmp_path), load_encoder(tmp_path / "encoder.safetensors")
    assert {tensor.device.type for tensor in from_file.state_dict().values()} == {"cpu"}
    for name, tensor in from_run.state_dict().items():
        torch.testing.assert_close(tensor, from_file.state_dict()[name], rtol=0, atol=0)
    assert from_file(torch.zeros(1, 3, 64, 64)).features.isfinite().all()
