"""What a detector found, and the average precision that it is judged by."""

from collections.abc import Sequence
from typing import Any, NamedTuple
import numpy as np
from numpy.typing import NDArray
from care.errors import CareError
from care.evaluate.matches import Matches, resampled_precision
from care.evaluate.resampling import DETECTION_DRAWS
from shards.boxes import BoxSet

THRESHOLDS = np.arange(50, 100, 5) / 100


class AveragePrecision(NamedTuple):
    """In per cent: AP over IoU 0.50:0.05:0.95, AP at 0.50, AP at 0.75."""

    ap: float
    ap50: float
    ap75: float


class Detections(NamedTuple):
    """What was found in one picture: left, top, right, bottom [n, 4] in its pixels, positions in the set's classes, RLEs of its size."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: list[dict[str, Any]] | None = None


class Judged(NamedTuple):
    """An average precision, and what it is made of: matches of every class, points of recall."""

    precision: AveragePrecision
    classes: list[Matches]
    recalls: NDArray[np.float64]

    def resampled(self, draws: int = DETECTION_DRAWS) -> list[float]:
        """``resampled_precision`` of these matches."""
        return resampled_precision(self.classes, self.recalls, draws)


def check(truth: BoxSet, found: Sequence[Detections] = ()) -> None:
    """Raise a ``CareError`` if ``truth`` has no box that counts, or a detection is not finite: NaN would match every box."""
    if all(picture.ignored.all() for picture in truth.pictures):
        raise CareError(
            f"{truth.path} has no box that counts; detection needs some to learn from and to score"
        )
    if not all(np.isfinite(one.boxes).all() and np.isfinite(one.scores).all() for one in found):
        raise CareError(
            "a detection is not finite: the detector diverged; lower lr or lengthen warmup"
        )
