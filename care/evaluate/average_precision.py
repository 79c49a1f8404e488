"""What a detector found, and what both metrics of it give.

How the two metrics match detections with objects is in ``care.evaluate.coco_metric`` and
``care.evaluate.voc_metric``, the precision of given matches in ``care.evaluate.matches``.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple
import numpy as np
from numpy.typing import NDArray
from care.errors import CareError
from care.evaluate.matches import Matches, mean_precision, resampled_precision
from care.evaluate.predictions import as_percent
from care.evaluate.resampling import DETECTION_DRAWS
from shards.boxes import BoxSet
from shards.rejects import describe

THRESHOLDS = np.arange(50, 100, 5) / 100  # of the IoU above which a detection is right


class AveragePrecision(NamedTuple):
    """Average precision in per cent, the mean over classes.

    Attributes:
        ap: mean over IoU thresholds 0.50, 0.55 … 0.95.
        ap50: at a threshold of 0.50.
        ap75: at a threshold of 0.75.
    """

    ap: float
    ap50: float
    ap75: float


class Detections(NamedTuple):
    """What was found in one picture.

    Attributes:
        boxes: [n, 4], left, top, right, bottom in pixels of the picture.
        scores: [n], the surer the higher.
        labels: [n], positions in the set's classes.
        masks: RLEs of the picture's size, or None where no masks were looked for.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: list[dict[str, Any]] | None = None


class Judged(NamedTuple):
    """An average precision, and what it is made of.

    Attributes:
        precision: of the pictures as they are.
        classes: matches of each class.
        recalls: the points of recall at which precision is taken.
        labels: positions of these classes in the set's.
        by_size: average precision of ``small``, ``medium`` and ``large`` objects, per cent, of
            those sizes that there are; COCO's metric alone has it.
    """

    precision: AveragePrecision
    classes: list[Matches]
    recalls: NDArray[np.float64]
    labels: Sequence[int] = ()
    by_size: dict[str, float] = {}  # noqa: RUF012 (a NamedTuple's default is never changed)

    def by_class(self, names: Sequence[str]) -> dict[str, float]:
        """Average precision of each class that has an object that counts, per cent, by its name.

        Args:
            names: of the set's classes.
        """
        precisions = dict[str, float]()
        for label, matches in zip(self.labels, self.classes, strict=True):
            every_picture_once = np.ones(len(matches.objects), np.int64)
            by_threshold = mean_precision([matches], self.recalls, every_picture_once)
            precisions[names[label]] = as_percent(float(by_threshold.mean()))
        return precisions

    def resampled(self, draws: int = DETECTION_DRAWS) -> list[float]:
        """``resampled_precision`` of these matches."""
        return resampled_precision(self.classes, self.recalls, draws)


def check_countable(truth: BoxSet) -> None:
    """Refuse a set in which nothing can be found.

    Raises:
        CareError: it has no box, or only ignored ones.
    """
    if all(picture.ignored.all() for picture in truth.pictures):
        why = f" (left out: {describe(truth.rejects)})" if truth.rejects else ""
        raise CareError(
            f"{truth.path} has no box that counts{why}; "
            "detection needs some to learn from and to score"
        )


def check_finite(detections: Sequence[Detections]) -> None:
    """Refuse detections of a diverged detector: NaN would match every box.

    Raises:
        CareError: a box or a score is not finite.
    """
    for in_picture in detections:
        if not (np.isfinite(in_picture.boxes).all() and np.isfinite(in_picture.scores).all()):
            raise CareError(
                "a detection is not finite: the detector diverged; lower lr or lengthen warmup"
            )
