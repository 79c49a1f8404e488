"""A small encoder, settings and helpers of the tests of the linear evaluation."""

import json
import torch
from flat import take
from torch import nn
from torchvision import transforms
from care import TappedEncoder
from care.evaluate import linear
from care.evaluate.images import Crops
from care.train.machine import Machine

CLASSES = 6
SIZE = 32
COLOURS = ("blue", "cyan", "gray", "green", "red", "yellow")
RATES = (0.5, 8.0, 50.0)
SETTINGS = {
    "size": SIZE,
    "lrs": RATES,
    "epochs": 4,
    "batch_size": 8,
    "checkpoint_every": 6,
}  # five steps an epoch
STEPS = 20
NORMALIZE = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def make_encoder(seed=0):
    """Of one layer; in train mode, with statistics that are not the initial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = (
            nn.Conv2d(3, 16, 3, 4, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        encoder = TappedEncoder(nn.Sequential(*layers), "0")
        encoder.train()(torch.randn(8, 3, SIZE, SIZE))
    return encoder


def judge(encoder, train, val, run, **settings):
    """``linear`` with plain settings."""
    crops = take(Crops, settings)
    machine = take(Machine, settings)
    return linear(encoder, train, val, run, crops=crops, machine=machine, **settings)


class CrashError(Exception):
    pass


def crash(*args):
    raise CrashError


def tensors(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def rows(run):
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


def result(run):
    newest = sorted((run / "checkpoints").iterdir())[-1]
    return (run / "losses.jsonl").read_bytes(), *(
        (newest / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")
    )
