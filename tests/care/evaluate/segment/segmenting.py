"""A small segmenter, its settings, and images for it."""

import json
import torch
from flat import take
from safetensors.torch import load_file
from care import build_encoder
from care.evaluate import SegmenterShape, segment
from care.train import Machine

STEPS = 6
SETTINGS = {
    "channels": 8,
    "crop": 24,
    "side": 32,
    "iterations": STEPS,
    "batch_size": 4,
    "lr": 0.2,
    "precision": "fp32",
    "device": "cpu",
    "checkpoint_every": 2,
}


def make_encoder(seed=0, name="resnet18-small-half"):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_encoder(name).eval()


def judge(encoder, train, val, run, **settings):
    """``segment`` with plain settings."""
    shape = take(SegmenterShape, settings)
    machine = take(Machine, settings)
    return segment(encoder, train, val, run, shape=shape, machine=machine, **settings)


def train(sets, run, **changes):
    return judge(make_encoder(), *sets, run, **SETTINGS | changes)


def rows(run):
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


def saved(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def model_at(run, step):
    return load_file(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def result(run):
    newest = run / "checkpoints" / saved(run)[-1]
    return (run / "losses.jsonl").read_bytes(), *(
        (newest / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")
    )


class CrashError(Exception):
    pass


def crash(*args):
    raise CrashError
