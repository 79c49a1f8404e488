"""Average precision from what each detection is, on pictures that count once or, drawn, often."""

from collections.abc import Sequence
from typing import NamedTuple
import numpy as np
from numpy.typing import NDArray
from care.evaluate.resampling import DETECTION_DRAWS, resamples, rounded


class Matches(NamedTuple):
    """What all detections of a class are at every threshold, the highest score first.

    Attributes:
        right: [t, n], found a counting object.
        wrong: [t, n]; what is neither is not counted.
        pictures: [n], numbers of the pictures of the detections.
        objects: [pictures], how many of each picture's objects count.
    """

    right: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    pictures: NDArray[np.int64]
    objects: NDArray[np.int64]


def mean_precision(
    classes: Sequence[Matches],
    recalls: NDArray[np.float64],
    weights: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Interpolated average precision, the mean over the classes that have a counting object.

    The precision at a point of recall is the highest one at that recall or above.

    Args:
        classes: matches of each.
        recalls: points, rising.
        weights: [pictures], how often each is there: its detections and objects are counted so
            often, each copy apart. The copies of one detection follow each other.

    Returns:
        Shares [t], by threshold; a single 0 where no class has an object.
    """
    present = [matches for matches in classes if matches.objects @ weights > 0]
    if not present:
        return np.zeros(1)
    precisions = [_interpolated(matches, recalls, weights) for matches in present]
    mean: NDArray[np.float64] = np.mean(precisions, 0)
    return mean


def resampled_precision(
    classes: Sequence[Matches],
    recalls: NDArray[np.float64],
    draws: int = DETECTION_DRAWS,
) -> list[float]:
    """The mean of ``mean_precision`` over thresholds, per cent, on every draw of pictures.

    Args:
        classes: matches of each.
        recalls: points, rising.
        draws: the first ones of ``resamples``; one without a counting object has 0.
    """
    if not classes:
        return []
    means = list[float]()
    for weights in resamples(len(classes[0].objects), draws):
        means.append(100 * float(mean_precision(classes, recalls, weights).mean()))
    return rounded(means)


def _interpolated(
    matches: Matches,
    recalls: NDArray[np.float64],
    weights: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Average precision of one class [t] on pictures that are there so often."""
    copies = weights[matches.pictures]
    right = np.cumsum(matches.right * copies, 1)
    counted = right + np.cumsum(matches.wrong * copies, 1)
    recall = right / (matches.objects @ weights)
    highest = np.maximum.accumulate((right / np.maximum(counted, 1))[:, ::-1], 1)[:, ::-1]
    # beyond the last recall that is reached, precision is 0
    highest = np.pad(highest, ((0, 0), (0, 1)))
    places = [np.searchsorted(row, recalls) for row in recall]
    mean: NDArray[np.float64] = np.take_along_axis(highest, np.array(places), 1).mean(1)
    return mean
