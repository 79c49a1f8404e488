"""The record that every evaluation leaves, and how the scores of a classifier become an accuracy.

A label is a class by its number, from 0; below 0 is none. Two sets are comparable only where the
numbers mean the same classes, which ``check_same_classes`` holds.
"""

from typing import Any, NamedTuple
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
import shards
from care.errors import CareError

TOP = 5  # predictions of which one has to be right; ImageNet's second measure
NAMED_CLASSES = 5  # of those that only one of two sets has, an error names so many


class Evaluation(NamedTuple):
    """How good an encoder is at a task, judged by a protocol.

    Attributes:
        task: results of one name are comparable: with each other on the same data, with the
            paper's on ImageNet.
        protocol: how the figures came about, in words.
        measures: figures in per cent by name; the first one is the headline.
        chosen: the keywords that held-out images chose, by name.
        resampled: the first measure on the draws of ``care.evaluate.resampling``.
    """

    task: str
    protocol: str
    measures: dict[str, float]
    chosen: dict[str, Any] = {}  # noqa: RUF012 (a NamedTuple's default is never changed)
    resampled: list[float] = []  # noqa: RUF012


class Accuracy(NamedTuple):
    """How many of the images are classified rightly.

    Attributes:
        top1: per cent of the images whose class is the first prediction.
        top5: per cent of those whose class is among the first five, or all where fewer.
    """

    top1: float
    top5: float


def check_same_classes(train: shards.ShardSet, val: shards.ShardSet) -> None:
    """Refuse two sets whose labels mean different classes.

    Raises:
        CareError: the classes differ; it names some that only one of the sets has.
    """
    if train.classes == val.classes:
        return
    different = sorted({*train.classes} ^ {*val.classes})
    raise CareError(
        f"{train.path} and {val.path} must have the same classes; only one of them has: "
        + ", ".join(different[:NAMED_CLASSES])
    )


def check_labels(labels: Int[Tensor, " n"], classes: int) -> None:
    """Refuse labels that are no class.

    Raises:
        CareError: one is not between 0 and ``classes`` - 1; it tells their range.
    """
    if len(labels) == 0:
        return
    lowest = int(labels.min())
    highest = int(labels.max())
    if lowest < 0 or highest >= classes:
        raise CareError(
            f"wanted labels from 0 to {classes - 1}, got some from {lowest} to {highest}"
        )


def accuracy(scores: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Accuracy:
    """Top-1 and top-5 accuracy of the highest scores.

    Raises:
        CareError: a label is no class.
    """
    return accuracy_of(hits(scores, labels))


def hits(scores: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Bool[Tensor, "n 2"]:
    """Whether an image's class has the highest score, and whether one of the five highest.

    Args:
        scores: of every image and class.
        labels: classes by number.

    Raises:
        CareError: a label is no class.
    """
    classes = scores.shape[1]
    check_labels(labels, classes)
    predictions = scores.topk(min(TOP, classes), dim=1).indices
    right = predictions == labels[:, None]
    return torch.stack((right[:, 0], right.any(1)), 1)


def accuracy_of(right: Bool[Tensor, "n 2"]) -> Accuracy:
    """The mean over images of what ``hits`` gives."""
    top1, top5 = right.float().mean(0).tolist()
    return Accuracy(100 * top1, 100 * top5)
