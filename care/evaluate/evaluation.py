"""What every evaluation leaves: a record of scores under a protocol, of labels that mean the same."""

from typing import Any, NamedTuple
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
import shards
from care.errors import CareError


class Evaluation(NamedTuple):
    """How good an encoder is at a task, judged by a protocol; the keywords in ``chosen`` are what held-out images chose."""

    task: str  # results of one name are comparable: with each other on the same data, with the paper's on ImageNet
    protocol: str
    measures: dict[str, float]  # in per cent
    chosen: dict[str, Any] = {}  # noqa: RUF012 (a NamedTuple's default is never changed)
    resampled: list[float] = []  # noqa: RUF012 (the first measure on the draws of ``resampling``)


class Accuracy(NamedTuple):
    """Per cent of the images whose class is the first, or among the first five predictions (or all classes, where fewer)."""

    top1: float
    top5: float


def same_classes(train: shards.ShardSet, val: shards.ShardSet) -> None:
    """Refuse two sets whose labels mean different classes by a ``CareError`` that names those that only one of them has."""
    if train.classes != val.classes:
        only = ", ".join(sorted({*train.classes} ^ {*val.classes})[:5])
        raise CareError(
            f"{train.path} and {val.path} must have the same classes; only one of them has: {only}"
        )


def all_known(labels: Int[Tensor, " n"], classes: int) -> None:
    """Refuse labels that are no class by a ``CareError`` with their range."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise CareError(
            f"wanted labels from 0 to {classes - 1}, got some from {int(labels.min())} to {int(labels.max())}"
        )


def accuracy(scores: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Accuracy:
    """Top-1 and top-5 of the highest scores; a label that is no class is a ``CareError``."""
    return accuracy_of(hits(scores, labels))


def hits(scores: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Bool[Tensor, "n 2"]:
    """Whether an image's class has the highest score, and whether one of the five highest.

    Args:
        scores: of every image and class.
        labels: classes by number.

    Raises:
        CareError: a label is no class.
    """
    all_known(labels, scores.shape[1])
    right = scores.topk(min(5, scores.shape[1]), dim=1).indices == labels[:, None]
    return torch.stack((right[:, 0], right.any(1)), 1)


def accuracy_of(right: Bool[Tensor, "n 2"]) -> Accuracy:
    """The mean over images of what ``hits`` gives."""
    top1, top5 = right.float().mean(0).tolist()
    return Accuracy(100 * top1, 100 * top5)
