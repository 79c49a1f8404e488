"""The record that every evaluation leaves, and how the scores of a classifier become an accuracy.

A label is a class by its number, from 0; below 0 is none. Two sets are comparable only where the
numbers mean the same classes, which ``comparable`` sees to.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol
import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
import shards
from care.errors import CareError
from care.evaluate.predictions import TOP, Predictions, as_percent, rank_classes
from care.evaluate.resampling import resampled_mean
from shards.pixel_report import differences
from shards.progress import warn
from shards.reader import unknown_classes

NAMED_CLASSES = 5  # of those that differ between two sets, an error names so many


class Outcomes(Protocol):
    """What an evaluation has found image by image."""

    def files(self) -> dict[str, bytes]:
        """What is left of it, by file name."""


class Evaluation(NamedTuple):
    """How good an encoder is at a task, judged by a protocol.

    Attributes:
        task: results of one name are comparable: with each other on the same data, with the
            paper's on ImageNet.
        protocol: how the figures came about, in words.
        measures: figures by name, in per cent but where no label decides them; the first one is
            the headline.
        chosen: the keywords that held-out images chose, by name.
        resampled: the first measure on the draws of ``care.evaluate.resampling``.
        by_class: the first measure of each class by its name, where it is a mean over these.
        by_size: average precision of small, medium and large objects.
        outcomes: what was found image by image; None where nothing is kept of it.
    """

    task: str
    protocol: str
    measures: dict[str, float]
    chosen: dict[str, Any] = {}  # noqa: RUF012 (a NamedTuple's default is never changed)
    resampled: list[float] = []  # noqa: RUF012
    by_class: dict[str, float] = {}  # noqa: RUF012
    by_size: dict[str, float] = {}  # noqa: RUF012
    outcomes: Outcomes | None = None


class Accuracy(NamedTuple):
    """How many of the images are classified rightly.

    Attributes:
        top1: per cent of the images whose class is the first prediction.
        top5: per cent of those whose class is among the first five; None where there are no more
            than five classes, all of whose images would be.
    """

    top1: float
    top5: float | None


class Comparable(NamedTuple):
    """Two sets whose labels mean the same, and all of whose images have one.

    Attributes:
        train: those of its images that have a class.
        val: those of its images that have a class, numbered as train's.
        remark: what a reader of the result must know of the classes, to be appended to the
            protocol; "" if there is nothing.
    """

    train: shards.ShardSet
    val: shards.ShardSet
    remark: str


def comparable(train: shards.ShardSet, val: shards.ShardSet) -> Comparable:
    """Make the labels of two sets mean the same: classes of equal name are the same.

    Val may lack classes of train, and have them in another order. What is left out, and accuracies
    that say nothing, are also said on the terminal.

    Raises:
        CareError: images of val have classes that train does not have; it names some. Or a set has
            no image with a class.
    """
    check_classes(train, val)
    renumbered = val.with_classes(train.classes)
    remarks = list[str]()
    for data in (train, renumbered):
        count = int((data.labels < 0).sum())
        if count == len(data):
            raise CareError(
                f"{data.path} has no image with a class; wanted a set that is built of class "
                "folders or of a table with classes. Boxes are for care evaluate detect, several "
                "classes an image for care evaluate multilabel"
            )
        if count:
            remarks.append(
                f"{count:,} of {len(data):,} images of {Path(data.path).name} have no class and "
                "are left out"
            )
    learned = np.unique(train.labels[train.labels >= 0])
    if len(learned) == 1:
        remarks.append(
            f"train has one class, {train.classes[learned[0]]}: an accuracy says nothing of the "
            "encoder"
        )
    remarks += differences(train.index.pixels, val.index.pixels)
    for remark in dict.fromkeys(remarks):
        warn(remark)
    return Comparable(
        train.labelled(),
        renumbered.labelled(),
        "".join(f"; {remark}" for remark in dict.fromkeys(remarks)),
    )


def check_classes(train: shards.ShardSet, val: shards.ShardSet) -> None:
    """Refuse a set to be classified whose images have classes that cannot be learned.

    Raises:
        CareError: train does not have them; it names some.
    """
    unknown = unknown_classes(train, val)
    if not unknown:
        return
    raise CareError(
        f"images of {val.path} have classes that {train.path} does not have: "
        f"{_listed(unknown)}; it has {_listed(train.classes) or 'none'}. Name classes alike in "
        "both, or leave those images out"
    )


def _listed(names: Sequence[str]) -> str:
    """Some names for a message."""
    more = len(names) - NAMED_CLASSES
    return ", ".join(names[:NAMED_CLASSES]) + (f" and {more} more" if more > 0 else "")


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
    classes = scores.shape[1]
    check_labels(labels, classes)
    return accuracy_of(rank_classes(scores), labels, classes)


def accuracy_of(ranking: Int[Tensor, "n m"], labels: Int[Tensor, " n"], classes: int) -> Accuracy:
    """Top-1 and top-5 accuracy of predictions.

    Args:
        ranking: classes by number, the surest first.
        labels: the images' own.
        classes: how many there are.
    """
    right = (ranking == labels[:, None]).double()
    top1 = as_percent(float(right[:, 0].mean()))
    top5 = as_percent(float(right.amax(1).mean())) if classes > TOP else None
    return Accuracy(top1, top5)


def classification(
    predictions: Predictions,
    *,
    task: str,
    protocol: str,
    chosen: dict[str, Any] | None = None,
    more: dict[str, float] | None = None,
) -> Evaluation:
    """The record of a classifier.

    Args:
        predictions: of the images that are scored.
        task: as the record has it.
        protocol: likewise.
        chosen: likewise.
        more: further measures.
    """
    return Evaluation(
        task=task,
        protocol=protocol,
        measures=predictions.measures() | (more or {}),
        chosen=chosen or {},
        resampled=resampled_mean(predictions.right.numpy()),
        by_class=predictions.by_class(),
        outcomes=predictions,
    )
