"""One training of a fine-tuning: a classifier learns from some images, and is scored on others."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
import shards
from care.encoded import evaluating
from care.encoders import Encoder
from care.errors import Diverged
from care.evaluate.evaluation import accuracy_of, check_labels
from care.evaluate.images import Rows, centre_crops, random_crops
from care.evaluate.predictions import rank_classes
from care.evaluate.recipes import Candidate
from care.schedules import lr_at
from care.train.loading import worker_count
from care.train.machine import Machine
from care.train.precision import Precision, autocast
from care.train.rates import set_rate
from care.train.run import Run
from care.train.stored import set_size
from shards import storage
from shards.image_size import ImageSize, sides

SCORED_AT_ONCE = 256  # images


class Classifier(nn.Module):
    """A copy of an encoder with a linear head that starts at zero, on the encoder's device."""

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_()  # a ViT's patches, too
        device = next(encoder.parameters()).device
        # on the meta device, where it draws no random numbers
        head = nn.Linear(encoder.features, classes, device="meta")
        self.head = head.to_empty(device=device)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b classes"]:
        """Logits of normalised images, wherever they are."""
        images = x.to(self.head.weight.device).contiguous(memory_format=torch.channels_last)
        return nn.functional.linear(self.encoder(images).features, self.head.weight, self.head.bias)


@dataclass(frozen=True)
class Plan:
    """What all trainings of one fine-tuning have in common.

    Attributes:
        encoder: each training has a copy of it, on its device.
        encoder_digest: of its weights.
        train: set to learn from.
        batch_size: images a step, fewer where fewer are learned from.
        size: of the crops, pixels.
        min_scale: least share of an image's area in a training crop.
        seed: of the order and the crops.
        precision: of the arithmetic.
        machine: what decides no result.
    """

    encoder: Encoder
    encoder_digest: str
    train: shards.ShardSet
    batch_size: int
    size: ImageSize
    min_scale: float
    seed: int
    precision: Precision
    machine: Machine


class Scores(NamedTuple):
    """How a classifier does on images of a set.

    Attributes:
        ranking: its first predictions, see ``rank_classes``.
        top1: per cent of the images whose class is the first one.
        likelihood: mean logarithm of the probability that it gives to their classes.
    """

    ranking: Int[Tensor, "n m"]
    top1: float
    likelihood: float


def train_and_score(
    plan: Plan,
    rows: Rows,
    candidate: Candidate,
    folder: str | Path,
    data: shards.ShardSet,
    scored_rows: Rows,
) -> Scores:
    """Learn from some images of train, then score those of ``data`` on centre crops.

    Args:
        plan: what all trainings have in common.
        rows: numbers of the images to learn from.
        candidate: learning rates and epochs.
        folder: directory or URL of the run; a finished one is only scored.
        data: set of the images to score.
        scored_rows: their numbers in it.

    Raises:
        Diverged: a loss or a score is not finite.
        CareError: the folder has a run of other settings.
        Stopped: SIGINT or SIGTERM came; all is saved, the same call continues.
    """
    model = train_one(plan, rows, candidate, folder)
    logits = _logits(plan, model, data, scored_rows)
    if not logits.isfinite().all():
        rates = (candidate.lr, candidate.head_lr)
        raise Diverged(f"{_title(rows)} diverged at the learning rates {rates}; try lower ones")
    labels = torch.from_numpy(data.labels[scored_rows].astype(np.int64))
    check_labels(labels, logits.shape[1])
    ranking = rank_classes(logits)
    top1 = accuracy_of(ranking, labels, logits.shape[1]).top1
    return Scores(ranking, top1, -float(nn.functional.cross_entropy(logits, labels)))


def train_one(plan: Plan, rows: Rows, candidate: Candidate, folder: str | Path) -> Classifier:
    """A classifier that has learned from some images of train (see ``train_and_score``)."""
    model = Classifier(plan.encoder, len(plan.train.classes)).train()
    set_size(model.encoder, plan.size)
    device = model.head.weight.device
    batch_size = min(plan.batch_size, len(rows))
    steps = candidate.epochs * (len(rows) // batch_size)
    groups = [{"params": part.parameters()} for part in (model.encoder, model.head)]
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True, fused=True)
    settings = {
        "encoder": plan.encoder_digest,
        "data": plan.train.digest,
        "rows": storage.digest(rows.tolist()),
        "size": plan.size,
        "rates": (candidate.lr, candidate.head_lr),
        "steps": steps,
        "batch_size": batch_size,
        "min_scale": plan.min_scale,
        "seed": plan.seed,
        "precision": plan.precision,
    }

    def losses(images: Float[Tensor, "b _ h w"], labels: Int[Tensor, " b"]) -> dict[str, Tensor]:
        logits = model(images).float()
        return {"cross_entropy": nn.functional.cross_entropy(logits, labels.to(device))}

    with Run(
        folder,
        model,
        optimizer,
        settings,
        title=_title(rows),
        precision=plan.precision,
        machine=plan.machine,
    ) as run:
        batches = random_crops(
            plan.train,
            rows,
            size=plan.size,
            min_scale=plan.min_scale,
            batch_size=batch_size,
            steps=range(run.start, steps),
            seed=plan.seed,
            workers=run.workers,
        )
        for step, batch in enumerate(run.through(batches), run.start):
            lr = lr_at(step, total=steps, base=candidate.lr * batch_size / 256)
            head_lr = lr_at(step, total=steps, base=candidate.head_lr * batch_size / 256)
            set_rate(optimizer, lr, head_lr)
            terms = run.take_step(step, losses, (batch.images, batch.labels))
            run.record(step, terms, note=f"loss {terms['cross_entropy']:.3f}")
    return model


def _logits(
    plan: Plan,
    model: Classifier,
    data: shards.ShardSet,
    rows: Rows,
) -> Float[Tensor, "n classes"]:
    """Scores of centre crops, on the CPU, by a classifier in eval mode."""
    device = model.head.weight.device
    ends = range(SCORED_AT_ONCE, len(rows), SCORED_AT_ONCE)
    batches = [part.tolist() for part in np.split(rows, ends)]
    batch_bytes = SCORED_AT_ONCE * 3 * sides(plan.size).pixels
    workers = worker_count(
        plan.machine.workers, device, batches=len(batches), batch_bytes=batch_bytes
    )
    crops = centre_crops(data, batches, size=plan.size, workers=workers)
    with torch.no_grad(), evaluating(model), autocast(device, plan.precision):
        return torch.cat([model(images).float().cpu() for images in crops])


def _title(rows: Rows) -> str:
    return f"fine-tuning on {len(rows)} labels"
