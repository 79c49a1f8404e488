"""A linear classifier on frozen features."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from care.errors import CareError
from care.evaluate.features import Accuracy, Features, accuracy
from care.schedules import lr_at

LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


class Linear(NamedTuple):
    """Result of the linear evaluation."""

    accuracy: Accuracy
    lr: float
    """The learning rate that was best on the held-out part of train."""


def linear(
    train: Features, val: Features, *, lrs: tuple[float, ...] = LEARNING_RATES, epochs: int = 80, batch_size: int = 256,
    held_out: float = 0.2, seed: int = 0,
) -> Linear:  # fmt: skip
    """Linear evaluation on cached features: a fast protocol, not the paper's, which augments the training images.

    Features are standardised by the training set's mean and deviation. One Linear for each of ``lrs`` is trained in a single pass
    by SGD (momentum 0.9, no weight decay, cosine to 0; the paper's recipe) on train without its held-out part; the best there is
    trained again on all of train, and its last epoch is scored on ``val``, which chooses nothing.

    Args:
        train: features to fit.
        val: features to score.
        lrs: learning rates to choose from, for 256 images a step.
        epochs: passes over train.
        batch_size: features a step, fewer where train is smaller.
        held_out: share of train that chooses the learning rate.
        seed: of the split and the order.

    Raises:
        CareError: train is too small to hold a part out.
    """
    order = torch.randperm(len(train.x), generator=torch.Generator().manual_seed(seed))
    chosen = round(len(order) * held_out)
    if chosen == 0 or chosen == len(order):
        raise CareError(f"cannot hold {held_out:.0%} of {len(order)} training images out; use a larger set")
    mean, deviation = train.x.mean(0), train.x.std(0, correction=0).clamp_min(1e-6)
    x, y = (train.x - mean) / deviation, train.y
    weights = _fit(x[order[chosen:]], y[order[chosen:]], train.classes, lrs, epochs, batch_size, seed)
    scores = [accuracy(_logits(x[order[:chosen]], w[None])[0], y[order[:chosen]]).top1 for w in weights]
    best = lrs[scores.index(max(scores))]
    weights = _fit(x, y, train.classes, (best,), epochs, batch_size, seed)
    return Linear(accuracy(_logits((val.x - mean) / deviation, weights)[0], val.y), best)


def _logits(x: Tensor, weights: Tensor) -> Tensor:  # [n, d], [m, d + 1, classes] → [m, n, classes]
    return x @ weights[:, :-1] + weights[:, -1:]


def _fit(x: Tensor, y: Tensor, classes: int, lrs: tuple[float, ...], epochs: int, batch_size: int, seed: int) -> Tensor:
    """One linear classifier for each learning rate, all by the closed-form softmax gradient on the same batches."""
    batch = min(batch_size, len(x))
    generator = torch.Generator().manual_seed(seed)
    weights = torch.zeros(len(lrs), x.shape[1] + 1, classes)
    velocity = torch.zeros_like(weights)
    rates = torch.tensor(lrs)[:, None, None] * batch / 256
    per_epoch = len(x) // batch
    for step in range(epochs * per_epoch):
        if step % per_epoch == 0:
            shuffled = torch.randperm(len(x), generator=generator)
        rows = shuffled[step % per_epoch * batch :][:batch]
        error = (_logits(x[rows], weights).softmax(2) - F.one_hot(y[rows], classes)) / batch
        gradient = torch.cat((x[rows].T @ error, error.sum(1, keepdim=True)), 1)
        velocity.mul_(0.9).add_(gradient)
        weights -= rates * lr_at(step, total=epochs * per_epoch, base=1) * velocity
    return weights
