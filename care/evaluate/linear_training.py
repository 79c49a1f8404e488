"""Training linear classifiers on random crops, seen through a frozen encoder: the paper's loop."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
import shards
from care.encoders import Encoder
from care.evaluate.features import Features, device_of, frozen_features
from care.evaluate.images import centre_crops, random_crops
from care.evaluate.linear_heads import (
    ROWS_AT_ONCE,
    HeadTraining,
    LinearHeads,
)
from care.evaluate.predictions import DECIMALS
from care.schedules import lr_at
from care.train.loading import worker_count
from care.train.machine import Machine
from care.train.precision import Precision
from care.train.rates import set_rate
from care.train.run import Run
from shards.image_size import ImageSize, sides

# epochs after which the released code scores, beside every tenth and the last
SCORED_EPOCHS = (1, 2, 5, 7)


@dataclass(frozen=True)
class LinearPlan:
    """How classifiers are trained and scored.

    Attributes:
        size: of the crops, pixels.
        min_scale: least share of an image's area in a training crop.
        training: of the classifiers.
        held_out: numbers of the training images that choose the learning rate.
        precision: of the encoder's arithmetic.
        machine: what decides no result.
    """

    size: ImageSize
    min_scale: float
    training: HeadTraining
    held_out: Tensor
    precision: Precision
    machine: Machine


def train_heads(
    heads: LinearHeads,
    encoder: Encoder,
    train: shards.ShardSet,
    val_features: Features,
    run: str | Path,
    plan: LinearPlan,
    settings: dict[str, Any],
) -> Path:
    """Train the classifiers of all learning rates in one pass, and score them as they learn.

    Args:
        heads: on the encoder's device.
        encoder: in eval mode; not changed.
        train: set to learn from.
        val_features: of the images that the classifiers are scored on after some epochs.
        run: directory or URL of the checkpoints and the log.
        plan: how they are trained.
        settings: what decides the result, as the run keeps it.

    Returns:
        The log, with the scores of val after some of the epochs.
    """
    training = plan.training
    steps = settings["steps"]
    kept = ~torch.isin(torch.arange(len(train)), plan.held_out)
    # the rates of the classifiers are factors of their losses
    optimizer = torch.optim.SGD(heads.parameters(), lr=0, momentum=0.9)

    def losses(
        images: Float[Tensor, "b _ h w"],
        labels: Int[Tensor, " b"],
        rows: Int[Tensor, " b"],
    ) -> dict[str, Tensor]:
        features = frozen_features(encoder, images, plan.precision)
        return {"heads": heads.loss(features, labels, kept[rows])}

    with Run(
        run, heads, optimizer, settings, title="linear", precision="fp32", machine=plan.machine
    ) as state:
        batches = random_crops(
            train,
            np.arange(len(train)),
            size=plan.size,
            min_scale=plan.min_scale,
            batch_size=training.batch_size,
            steps=range(state.start, steps),
            seed=training.seed,
            workers=state.workers,
        )
        for step, batch in enumerate(state.through(batches), state.start):
            set_rate(optimizer, lr_at(step, total=steps, base=training.batch_size / 256))
            terms = state.take_step(step, losses, batch)
            scores = {}
            if _is_scored(step + 1, steps_of_epoch(train, plan), training.epochs):
                scores = _val_scores(heads, val_features, training.lrs)
            state.record(step, terms, scores)
    return state.path / "losses.jsonl"


def steps_of_epoch(train: shards.ShardSet, plan: LinearPlan) -> int:
    """Steps of one pass over train, whose last, incomplete batch is left out."""
    return len(train) // plan.training.batch_size


def _is_scored(steps: int, epoch_steps: int, epochs: int) -> bool:
    """Whether the released code scores after so many steps."""
    epoch, rest = divmod(steps, epoch_steps)
    return rest == 0 and (epoch in SCORED_EPOCHS or epoch % 10 == 0 or epoch == epochs)


def _val_scores(
    heads: LinearHeads,
    val_features: Features,
    lrs: tuple[float, ...],
) -> dict[str, float]:
    """Top-1 of val, per cent, of the classifiers that see all of train, as the log names it."""
    scores = heads.scores(torch.split(val_features.x, ROWS_AT_ONCE), val_features.y)
    of_all = scores[1].tolist()
    return {f"val {lr:g}": round(top1, DECIMALS) for lr, top1 in zip(lrs, of_all, strict=True)}


def held_out_features(
    encoder: Encoder,
    train: shards.ShardSet,
    plan: LinearPlan,
) -> Float[Tensor, "n d"]:
    """Features of the centre crops of the held-out images, on the encoder's device."""
    batch_size = plan.training.batch_size
    batches = [rows.tolist() for rows in torch.split(plan.held_out, batch_size)]
    workers = worker_count(
        plan.machine.workers,
        device_of(encoder),
        batches=len(batches),
        batch_bytes=batch_size * 3 * sides(plan.size).pixels,
    )
    crops = centre_crops(train, batches, size=plan.size, workers=workers)
    return torch.cat([frozen_features(encoder, images, plan.precision) for images in crops])
