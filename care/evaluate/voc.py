"""Pascal VOC's metric."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from care.evaluate.coco import AveragePrecision, Detections, check
from shards.boxes import BoxSet

THRESHOLDS = np.arange(50, 100, 5) / 100
RECALLS = np.arange(0, 1.1, 0.1)
"""With detectron2's rounding: 0.3, 0.6 and 0.7 are the next larger floats, so that 3 of 10 objects do not reach 0.3."""


def average_precision(truth: BoxSet, found: Sequence[Detections]) -> AveragePrecision:
    """VOC2007's 11-point AP at every IoU 0.50:0.05:0.95, the mean over classes, as detectron2's Pascal VOC evaluation has it (Sec. 4.3).

    Detections of a class come by falling score over all images, equal scores in the order of ``found``. Each asks for the object of its
    image and class that it overlaps most, of equal ones the first: with an IoU of at most the threshold it is wrong, else right, or wrong
    if an earlier one asked for the same. Asking for an ignored object is neither. In detectron2, scores have 3 and coordinates 1 decimal
    and classes without an object that counts have AP 0; here nothing is rounded, and such classes are left out.
    """
    check(truth, found)
    overlaps, nearest, precisions, first = list[Any](), list[Any](), list[Any](), 0
    for picture, one in zip(truth.pictures, found, strict=True):
        # VOC's sides are inclusive, hence its + 1; shards.boxes reads xmin - 1 and xmax, and detections are of the same kind
        a, b = one.boxes[:, None].astype(np.float64), picture.boxes[None].astype(np.float64)
        common = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0).prod(2)
        union = (a[..., 2:] - a[..., :2]).clip(0).prod(2) + (b[..., 2:] - b[..., :2]).prod(2) - common
        iou = np.where(one.labels[:, None] == picture.labels, common / union, 0)
        overlaps.append(iou.max(1, initial=0))
        nearest.append(first + np.pad(iou, ((0, 0), (0, 1))).argmax(1))  # without an object, of one that is none
        first += len(picture.boxes)
    overlap, near, scores, labels = map(np.concatenate, (overlaps, nearest, [one.scores for one in found], [one.labels for one in found]))
    objects = np.concatenate([picture.labels for picture in truth.pictures])
    counts = ~np.concatenate([*(picture.ignored for picture in truth.pictures), [True]])
    for label in np.unique(objects[counts[:-1]]):
        rows = np.flatnonzero(labels == label)
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        wanted = np.count_nonzero(counts[:-1] & (objects == label))
        for threshold in THRESHOLDS:
            close = overlap[rows] > threshold
            asked = np.flatnonzero(close & counts[near[rows]])
            right, wrong = np.zeros(len(rows)), ~close + 0.0
            wrong[asked] = 1
            right[asked[np.unique(near[rows[asked]], return_index=True)[1]]] = 1
            right, wrong = np.cumsum(right), np.cumsum(wrong - right)
            precision = right / np.maximum(right + wrong, np.finfo(np.float64).eps)
            precisions.append([precision[right / wanted >= recall].max(initial=0) for recall in RECALLS])
    ap = 100 * np.mean(precisions, 1).reshape(-1, len(THRESHOLDS)).mean(0)
    return AveragePrecision(float(ap.mean()), float(ap[0]), float(ap[5]))
