"""Settings and helpers of the tests of fine-tuning."""

import json
import numpy as np
import torch
from flat import take
from torchvision import transforms
from care.evaluate import finetune
from care.evaluate.few_labels import Labels
from care.evaluate.images import Crops
from care.train import checkpoint
from care.train.machine import Machine

SIZE = 32
COLOURS = ("blue", "cyan", "gray", "green", "red", "yellow")
GOOD = (0.4, 4.0)
QUICK = {"size": SIZE, "epochs": (2,), "batch_size": 8}
ALL = np.arange(30)
NORMALIZE = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
TWO = {
    "rates": ((0.1, 1.0), GOOD),
    "checkpoint_every": 2,
}  # six steps each without a fifth of the labels, and six on all


def judge(encoder, train, val, run, **settings):
    """``finetune`` with plain settings."""
    labels = take(Labels, settings)
    crops = take(Crops, settings)
    machine = take(Machine, settings)
    return finetune(
        encoder, train, val, run, labels=labels, crops=crops, machine=machine, **settings
    )


def tune(encoder, train, val, run, *, rates=(GOOD,), **changes):
    lrs, head_lrs = zip(*rates, strict=True)
    return judge(encoder, train, val, run, lrs=lrs, head_lrs=head_lrs, **QUICK | changes)


def rate(got):
    return (*got.chosen["lrs"], *got.chosen["head_lrs"])


class CrashError(Exception):
    pass


def crash():
    raise CrashError


def rows_of(run):
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


def saved(run):
    """The bytes of the weights and the log of the training on all labels."""
    newest = checkpoint.latest(run / "all labels").path
    return (run / "all labels" / "losses.jsonl").read_bytes(), (
        newest / "model.safetensors"
    ).read_bytes()


def tensors(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items()
    )


def write_list(tmp_path, *lines):
    (tmp_path / "list.txt").write_text("\n".join(lines))
    return tmp_path / "list.txt"
