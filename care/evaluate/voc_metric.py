"""Pascal VOC's average precision of boxes."""

from collections.abc import Sequence
from typing import Any
import numpy as np
from care.evaluate.average_precision import THRESHOLDS, AveragePrecision, Detections, Judged, check
from care.evaluate.matches import Matches, mean_precision
from shards.boxes import BoxSet

RECALLS = np.arange(
    0, 1.1, 0.1
)  # with detectron2's rounding: 0.3, 0.6 and 0.7 are larger, so that 3 of 10 objects do not reach 0.3


def voc_average_precision(truth: BoxSet, found: Sequence[Detections]) -> AveragePrecision:
    """Pascal VOC's average precision: that of ``judge_voc``."""
    return judge_voc(truth, found).precision


def judge_voc(truth: BoxSet, found: Sequence[Detections]) -> Judged:
    """VOC2007's 11-point AP at every IoU 0.50:0.05:0.95, the mean over classes, as detectron2's Pascal VOC evaluation has it (Sec. 4.3).

    Detections of a class come by falling score over all images, equal scores in the order of ``found``. Each asks for the object of its
    image and class that it overlaps most, of equal ones the first: with an IoU of at most the threshold it is wrong, else right, or wrong
    if an earlier one asked for the same. Asking for an ignored object is neither; classes without one that counts are left out.
    """
    check(truth, found)
    overlaps, nearest, first = list[Any](), list[Any](), 0
    for picture, one in zip(truth.pictures, found, strict=True):
        # VOC's sides are inclusive, hence its + 1; shards.boxes reads xmin - 1 and xmax, and detections are of the same kind
        a, b = one.boxes[:, None].astype(np.float64), picture.boxes[None].astype(np.float64)
        common = (
            (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]))
            .clip(0)
            .prod(2)
        )
        union = (
            (a[..., 2:] - a[..., :2]).clip(0).prod(2) + (b[..., 2:] - b[..., :2]).prod(2) - common
        )
        iou = np.where(one.labels[:, None] == picture.labels, common / union, 0)
        overlaps.append(iou.max(1, initial=0))
        nearest.append(
            first + np.pad(iou, ((0, 0), (0, 1))).argmax(1)
        )  # without an object, of one that is none
        first += len(picture.boxes)
    overlap, near, scores, labels = map(
        np.concatenate,
        (overlaps, nearest, [one.scores for one in found], [one.labels for one in found]),
    )
    objects = np.concatenate([picture.labels for picture in truth.pictures])
    # the pictures of the detections and of the objects
    homes = np.repeat(np.arange(len(found)), [len(one.scores) for one in found])
    object_homes = np.repeat(np.arange(len(found)), [len(one.boxes) for one in truth.pictures])
    counts = ~np.concatenate([*(picture.ignored for picture in truth.pictures), [True]])
    classes = list[Matches]()
    for label in np.unique(objects[counts[:-1]]):
        rows = np.flatnonzero(labels == label)
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        wanted = object_homes[counts[:-1] & (objects == label)]
        right = np.zeros((len(THRESHOLDS), len(rows)), np.bool_)
        wrong = np.zeros_like(right)
        for level, threshold in enumerate(THRESHOLDS):
            close = overlap[rows] > threshold
            asked = np.flatnonzero(close & counts[near[rows]])
            right[level, asked[np.unique(near[rows[asked]], return_index=True)[1]]] = True
            wrong[level] = ~close
            wrong[level, asked] = True
        wrong &= ~right
        in_pictures = np.bincount(wanted, minlength=len(found))
        classes.append(Matches(right, wrong, homes[rows], in_pictures))
    ap = 100 * mean_precision(classes, RECALLS, np.ones(len(found), np.int64))
    precision = AveragePrecision(float(ap.mean()), float(ap[0]), float(ap[5]))
    return Judged(precision, classes, RECALLS)
