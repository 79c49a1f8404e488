"""Pascal VOC's average precision of boxes, as detectron2's evaluation of Pascal VOC has it."""

from collections.abc import Sequence
from typing import NamedTuple
import numpy as np
from numpy.typing import NDArray
from care.evaluate.average_precision import (
    THRESHOLDS,
    AveragePrecision,
    Detections,
    Judged,
    check_countable,
    check_finite,
)
from care.evaluate.matches import Matches, mean_precision
from shards.boxes import BoxSet, Picture

# detectron2's, with its rounding: 0.3, 0.6 and 0.7 are larger, and 3 of 10 objects do not reach 0.3
RECALLS = np.arange(0, 1.1, 0.1)


class _Objects(NamedTuple):
    """The objects of all pictures, one after the other.

    Attributes:
        labels: [m].
        pictures: [m], numbers of their pictures.
        counts: [m], whether they are not ignored.
    """

    labels: NDArray[np.int64]
    pictures: NDArray[np.int64]
    counts: NDArray[np.bool_]


class _Claims(NamedTuple):
    """The detections of all pictures, one after the other, and the object that each claims.

    Attributes:
        labels: [n].
        scores: [n].
        pictures: [n], numbers of their pictures.
        overlaps: [n], IoU with the object that a detection overlaps most.
        objects: [n], numbers of these objects; of a detection without one, any.
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    pictures: NDArray[np.int64]
    overlaps: NDArray[np.float64]
    objects: NDArray[np.int64]


def voc_average_precision(truth: BoxSet, detections: Sequence[Detections]) -> AveragePrecision:
    """Pascal VOC's average precision: that of ``judge_voc``, whose arguments these are."""
    return judge_voc(truth, detections).precision


def judge_voc(truth: BoxSet, detections: Sequence[Detections]) -> Judged:
    """VOC2007's 11-point average precision, the mean over classes (Sec. 4.3).

    Detections of a class come by falling score over all images, equal scores in the order of
    ``detections``. Each claims the object of its image and class that it overlaps most, of equal
    ones the first: with an IoU of at most the threshold it is wrong, else right, or wrong if an
    earlier one claimed the same. Claiming an ignored object is neither; classes without an object
    that counts are left out.

    Args:
        truth: pictures with their boxes.
        detections: of every picture.

    Raises:
        CareError: no box counts, or a detection is not finite.

    Source: detectron2's ``pascal_voc_evaluation.py``, at every IoU threshold 0.50:0.05:0.95.
    """
    check_countable(truth)
    check_finite(detections)
    objects = _objects(truth)
    claims = _claims(truth, detections)
    labels = np.unique(objects.labels[objects.counts]).tolist()
    classes = [_matches(label, claims, objects, pictures=len(detections)) for label in labels]
    every_picture_once = np.ones(len(detections), np.int64)
    ap = 100 * mean_precision(classes, RECALLS, every_picture_once)
    precision = AveragePrecision(float(ap.mean()), float(ap[0]), float(ap[5]))
    return Judged(precision, classes, RECALLS, labels)


def _objects(truth: BoxSet) -> _Objects:
    """All objects of a set."""
    counts = [len(picture.boxes) for picture in truth.pictures]
    return _Objects(
        labels=np.concatenate([picture.labels for picture in truth.pictures]),
        pictures=np.repeat(np.arange(len(counts)), counts),
        counts=~np.concatenate([picture.ignored for picture in truth.pictures]),
    )


def _claims(truth: BoxSet, detections: Sequence[Detections]) -> _Claims:
    """All detections, with the object of its class that each overlaps most."""
    overlaps = []
    objects = []
    first = 0  # number of the picture's first object
    for picture, in_picture in zip(truth.pictures, detections, strict=True):
        iou = _iou(in_picture, picture)
        overlaps.append(iou.max(1, initial=0))
        # a column more, or a picture without objects would have no largest one
        objects.append(first + np.pad(iou, ((0, 0), (0, 1))).argmax(1))
        first += len(picture.boxes)
    counts = [len(in_picture.scores) for in_picture in detections]
    return _Claims(
        labels=np.concatenate([in_picture.labels for in_picture in detections]),
        scores=np.concatenate([in_picture.scores for in_picture in detections]),
        pictures=np.repeat(np.arange(len(detections)), counts),
        overlaps=np.concatenate(overlaps),
        objects=np.concatenate(objects),
    )


def _iou(in_picture: Detections, picture: Picture) -> NDArray[np.float64]:
    """[n, m] of detections with objects of their class, 0 with others.

    VOC's sides are inclusive, hence its + 1; ``shards.boxes`` reads xmin - 1 and xmax, and
    detections are of the same kind.
    """
    a = in_picture.boxes[:, None].astype(np.float64)
    b = picture.boxes[None].astype(np.float64)
    width_height = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    intersection = width_height.clip(0).prod(2)
    # a detection may have no area, an object has some
    areas = (a[..., 2:] - a[..., :2]).clip(0).prod(2) + (b[..., 2:] - b[..., :2]).prod(2)
    of_class = in_picture.labels[:, None] == picture.labels
    iou: NDArray[np.float64] = np.where(of_class, intersection / (areas - intersection), 0)
    return iou


def _matches(label: int, claims: _Claims, objects: _Objects, *, pictures: int) -> Matches:
    """What the detections of a class are at every threshold, the highest score first."""
    rows = np.flatnonzero(claims.labels == label)
    rows = rows[np.argsort(-claims.scores[rows], kind="stable")]
    wanted = objects.pictures[objects.counts & (objects.labels == label)]
    right = np.zeros((len(THRESHOLDS), len(rows)), np.bool_)
    wrong = np.zeros_like(right)
    for level, threshold in enumerate(THRESHOLDS):
        close = claims.overlaps[rows] > threshold
        nearest = claims.objects[rows]
        # what is close to no object has any number here
        counted = np.zeros_like(close)
        counted[close] = objects.counts[nearest[close]]
        for_counting = np.flatnonzero(counted)
        _, first_for_object = np.unique(nearest[for_counting], return_index=True)
        right[level, for_counting[first_for_object]] = True
        wrong[level] = (~close | counted) & ~right[level]
    return Matches(
        right=right,
        wrong=wrong,
        pictures=claims.pictures[rows],
        objects=np.bincount(wanted, minlength=pictures),
    )
