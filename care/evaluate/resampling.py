"""How sure a figure is: the same figure on validation sets drawn with replacement from the set.

The draws are a function of the set's size alone: whatever is judged on the same images is judged
on the same draws, so that the difference of two encoders is paired by the number of the draw.
"""

from collections.abc import Iterator, Sequence
import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 200
DETECTION_DRAWS = 50  # the first of those: a detector's average precision takes longer than a mean
_KEY = int.from_bytes(b"resample") << 64  # apart from what orders and augments images


def resamples(count: int, draws: int = DRAWS) -> Iterator[NDArray[np.int64]]:
    """How often each of ``count`` images is in a set of as many, drawn with replacement.

    Args:
        count: images in the set.
        draws: sets; draw n is the same whatever their number.

    Yields:
        Weights [count], which add up to ``count``, of one draw after the other.
    """
    for draw in range(draws):
        # numpy promises the bits of raw Philox words for ever, those of its distributions not
        words = np.random.Philox(key=_KEY | count, counter=draw << 192).random_raw(count)
        rows = (words % np.uint64(max(count, 1))).astype(np.int64)
        yield np.bincount(rows, minlength=count)


def resampled_mean(scores: ArrayLike, draws: int = DRAWS) -> list[float]:
    """The mean score of the images of every draw, in per cent with three decimals.

    Args:
        scores: [n], of one image each, from 0 to 1, or whether it is right.
        draws: of ``resamples``.
    """
    values = np.asarray(scores, np.float64)
    totals = [float(weights @ values) for weights in resamples(len(values), draws)]
    return rounded([100 * total / len(values) for total in totals])


def rounded(figures: Sequence[float]) -> list[float]:
    """Figures as a result holds them: three decimals of a per cent are far below their spread."""
    return [round(figure, 3) for figure in figures]
