"""Which few labelled images are learned from: a share of every class, or those of a list."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from numpy.typing import NDArray
import shards
from care.evaluate.images import Rows
from care.evaluate.label_lists import listed
from shards.errors import Misuse
from shards.order import permutation
from shards.progress import warn


@dataclass(frozen=True)
class Labels:
    """Which images of a set are learned from, by exactly one of these.

    Attributes:
        fraction: share of every class's labels to learn from.
        names: text file, table or URL of one with the names of the images to learn from instead,
            such as SimCLR's lists of ImageNet; names may have folders.
        rows: their numbers in train instead.
    """

    fraction: float | None = None
    names: str | Path | None = None
    rows: Rows | None = None


def stratified(labels: NDArray[np.int32], fraction: float, *, seed: int = 0) -> Rows:
    """Numbers of the images of a part of every class, the same share of each.

    The share is rounded for each class, to at least one image. Of equal seeds a smaller fraction
    is a subset of a larger one.

    Args:
        labels: classes of all images [n]; those below 0 are none and never chosen.
        fraction: share of every class.
        seed: decides which images of a class.

    Returns:
        Positions in ``labels``, ascending.

    Raises:
        Misuse: the fraction is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise Misuse(f"wanted a fraction of the labels above 0 and at most 1, got {fraction}")
    chosen = [np.empty(0, np.int64)]
    for label in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == label)
        count = max(round(len(rows) * fraction), 1)
        order = permutation(len(rows), seed=seed, stream=int(label))
        chosen.append(rows[order[:count]])
    return np.sort(np.concatenate(chosen))


def labelled_rows(data: shards.ShardSet, labels: Labels, *, seed: int) -> Rows:
    """Numbers of the images to learn from.

    What is missing is said on the terminal.

    Args:
        data: set of the images.
        labels: which of its labels are used.
        seed: of ``stratified``.

    Raises:
        Misuse: not exactly one field of ``labels`` is there.
        CareError: the list is none of this set.
    """
    choices = (labels.fraction, labels.names, labels.rows)
    if sum(choice is not None for choice in choices) != 1:
        raise Misuse(
            "wanted the images to learn from as one of fraction and names, such as "
            "--fraction 0.1 or --list NAMES.txt"
        )
    if labels.fraction is not None:
        rows = stratified(data.labels, labels.fraction, seed=seed)
    elif labels.names is not None:
        rows, missing = listed(data, labels.names)
        if missing:
            warn(
                f"{len(missing):,} names of {labels.names} are not in {data.path}, such as "
                f"{missing[0]}"
            )
    else:
        rows = np.asarray(labels.rows)
    _note_absent_classes(data, data.labels[rows].tolist())
    return rows


def _note_absent_classes(data: shards.ShardSet, labels: Sequence[int]) -> None:
    absent = sorted(set(range(len(data.classes))) - set(labels))
    if absent:
        example = data.classes[absent[0]]
        warn(f"{len(absent)} classes have no labelled image, such as {example}")
