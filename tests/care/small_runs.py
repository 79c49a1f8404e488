"""Tiny runs of ``pretrain``, what they leave, and a way to break them off."""

import json
from flat import gathered
from care import BYOL, streams_for
from care.train import pretrain

STEPS = 6
SIZE = 16  # px: how a run goes does not depend on it

SETTINGS = {
    "size": SIZE,
    "batch_size": 8,
    "steps": STEPS,
    "warmup": 2,
    "precision": "fp32",
    "device": "cpu",
    "checkpoint_every": 2,
}


def make_streams(*, encoder="resnet18-small-half", **changes):
    return streams_for(
        encoder,
        **{"size": SIZE, "seed": 0, "blocks": 1, "objective": BYOL(hidden=32)} | changes,
    )


def train(data, run, **changes):
    """A tiny run, from new streams."""
    return pretrain(data, run, *make_streams(), **gathered(SETTINGS | changes))


def rows(run):
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


def result(run):
    return (run / "encoder.safetensors").read_bytes(), (run / "losses.jsonl").read_bytes()


def saved(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


class CrashError(Exception):
    pass


def crash(*args, **settings):
    raise CrashError
