"""What a classifier predicts of every image of a set: by key, by class, and as a confusion."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor
import shards

TOP = 5  # predictions of which one has to be right; ImageNet's second measure
DECIMALS = 3  # of a per cent: far below the spread of any figure


class Predictions(NamedTuple):
    """The first predictions of the images of a set, and what these are.

    Attributes:
        ranking: [n, m], classes by number, the surest first: five, or all where fewer.
        labels: [n], the images' own classes.
        classes: their names.
        keys: [n], names of the images in their set.
    """

    ranking: Int[Tensor, "n m"]
    labels: Int[Tensor, " n"]
    classes: Sequence[str]
    keys: NDArray[Any]

    def __eq__(self, other: object) -> bool:
        """Whether all of them are equal; tensors alone would be compared one by one."""
        return isinstance(other, Predictions) and self.files() == other.files()

    def __hash__(self) -> int:
        return hash(tuple(self.files().items()))

    @property
    def right(self) -> Bool[Tensor, " n"]:
        """Whether the first prediction of an image is its class."""
        return self.ranking[:, 0] == self.labels

    def measures(self) -> dict[str, float]:
        """Accuracies in per cent: ``top1``, and what says something beside it.

        ``top5`` is there where there are more than five classes, ``balanced``, the mean of the
        classes' accuracies, where the set has not as many images of each.
        """
        measures = {"top1": _percent(self.right)}
        if len(self.classes) > TOP:
            among_first = (self.ranking == self.labels[:, None]).any(1)
            measures["top5"] = _percent(among_first)
        counts = torch.bincount(self.labels)
        if len({count for count in counts.tolist() if count}) > 1:
            shares = self._shares()
            measures["balanced"] = as_percent(sum(shares.values()) / len(shares))
        return measures

    def by_class(self) -> dict[str, float]:
        """Accuracy in per cent of each class that has an image, by its name."""
        return {name: as_percent(share) for name, share in self._shares().items()}

    def _shares(self) -> dict[str, float]:
        """The part of each class's images whose first prediction is right."""
        counts = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        hits = torch.bincount(self.labels[self.right], minlength=len(self.classes)).tolist()
        present = [number for number, count in enumerate(counts) if count]
        return {self.classes[number]: hits[number] / counts[number] for number in present}

    def confusion(self) -> list[tuple[str, str, int]]:
        """Class, prediction and how many images, of each pair that there is."""
        pairs = zip(self.labels.tolist(), self.ranking[:, 0].tolist(), strict=True)
        counts = sorted(Counter(pairs).items())
        return [
            (self.classes[label], self.classes[prediction], count)
            for (label, prediction), count in counts
        ]

    def files(self) -> dict[str, bytes]:
        """What an evaluation leaves of them, by file name: two tables as CSV."""
        names = np.array(self.classes, object)
        later = [f"prediction{place + 1}" for place in range(1, self.ranking.shape[1])]
        images = zip(
            self.keys.tolist(),
            names[self.labels.numpy()],
            names[self.ranking.numpy()].tolist(),
            strict=True,
        )
        rows = ([key, label, *ranked] for key, label, ranked in images)
        return {
            "predictions.csv": as_csv(["key", "class", "prediction", *later], rows),
            "confusion.csv": as_csv(["class", "prediction", "images"], self.confusion()),
        }


def predictions_of(data: shards.ShardSet, ranking: Int[Tensor, "n m"]) -> Predictions:
    """The predictions of all images of a set, each of which has a class."""
    labels = torch.from_numpy(data.labels.astype(np.int64))
    return Predictions(ranking, labels, data.classes, np.asarray(data.keys))


def rank_classes(scores: Float[Tensor, "n classes"]) -> Int[Tensor, "n m"]:
    """The classes of the five highest scores, or of all where fewer, the highest first."""
    return scores.topk(min(TOP, scores.shape[1]), dim=1).indices


def as_percent(share: float) -> float:
    """A share of 1 as a result holds it: in per cent, of which three decimals are kept."""
    return round(100 * share, DECIMALS)


def as_csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """A table as a file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    # names that are no UTF-8 stay what they are
    return text.getvalue().encode(errors="surrogateescape")


def _percent(right: Bool[Tensor, " n"]) -> float:
    """How many are true, in per cent."""
    return as_percent(float(right.double().mean()))
