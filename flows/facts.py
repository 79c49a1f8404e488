"""What only the built data can tell: counts and classes, on which later stages depend."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
import numpy as np
import numpy.typing as npt
import shards
from flows.experiment import Experiment
from flows.result import Result
from shards.errors import ShardError
from shards.reader import unknown_classes

LEAST_LABELS = 3  # images: of fewer, fine-tuning can hold none out to choose by


@dataclass(frozen=True)
class Facts:
    """What is known of the images once they are built.

    Attributes:
        images: to train on.
        label_counts: how many of them each share of the labels is; none without labels.
    """

    images: int
    label_counts: Mapping[float, int]

    @classmethod
    def of(cls, experiment: Experiment, sets: Mapping[str, Result]) -> "Facts":
        """What the built sets tell.

        Args:
            experiment: of them.
            sets: results of the stages that built "train" and, with labels, "val".

        Raises:
            ShardError: The second has other classes: told before the training, not after it.
        """
        train = shards.open(sets["train"]["url"])
        if not experiment.is_labelled:
            return cls(len(train), {})
        val = shards.open(sets["val"]["url"])
        unknown = unknown_classes(train, val)
        if unknown:
            raise ShardError(
                f"{experiment.images.images}: images to evaluate on have classes that those to "
                f"train on do not have: {', '.join(unknown[:5])}; name classes alike in both, or "
                "leave those images out"
            )
        for data, use in ((train, "learn from"), (val, "evaluate on")):
            if not (data.labels >= 0).any():
                raise ShardError(
                    f"{experiment.images.images}: wanted images with a class to {use}, got "
                    f"{len(data)} without; name labelled images to evaluate on by --val"
                )
        return cls(len(train), label_counts(train.labels, experiment.judging.labels))

    @classmethod
    def before(cls, experiment: Experiment) -> "Facts":
        """What may be supposed while the sets are not built: that all shares suffice."""
        labels = experiment.judging.labels if experiment.is_labelled else ()
        counts = {share: LEAST_LABELS + rank for rank, share in enumerate(sorted(labels))}
        return cls(experiment.protocol.batch_size, counts)

    @property
    def tuned_shares(self) -> dict[float, int]:
        """The shares of the labels that are fine-tuned on, with their images.

        Of small sets several shares are the same images, one of each class: the smallest is taken.
        """
        smallest = self._smallest_shares()
        return {share: n for share, n in self.label_counts.items() if smallest.get(n) == share}

    @property
    def skipped(self) -> list[str]:
        """In words, the shares of the labels that do not suffice, or are no others."""
        smallest = self._smallest_shares()
        lines = list[str]()
        for share, n in self.label_counts.items():
            if n < LEAST_LABELS:
                why = f"that is {n} images, too few to hold one out"
            elif smallest[n] != share:
                why = f"these are the same {n} images as {100 * smallest[n]:g} %"
            else:
                continue
            lines.append(f"{100 * share:g} % of the labels: {why}")
        return lines

    def _smallest_shares(self) -> dict[int, float]:
        """By number of images, of those that suffice, the smallest share that has as many."""
        smallest = dict[int, float]()
        for share, n in sorted(self.label_counts.items()):
            if n >= LEAST_LABELS:
                smallest.setdefault(n, share)
        return smallest


def label_counts(labels: npt.NDArray[np.integer[Any]], shares: Iterable[float]) -> dict[float, int]:
    """How many images some shares of the labels are, where each class is rounded by itself.

    Args:
        labels: of all images [n]; those below 0 are none.
        shares: above 0 and up to 1; of every class there is one image at least.
    """
    numbers = np.asarray(labels)
    by_class = np.bincount(numbers[numbers >= 0])
    by_class = by_class[by_class > 0]
    return {share: int(np.maximum(np.rint(share * by_class), 1).sum()) for share in shares}
