"""COCO's box metric."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from care.errors import CareError
from shards.boxes import BoxSet


class AveragePrecision(NamedTuple):
    """In per cent: AP over IoU 0.50:0.05:0.95, AP at 0.50, AP at 0.75."""

    ap: float
    ap50: float
    ap75: float


class Detections(NamedTuple):
    """What was found in one picture."""

    boxes: NDArray[np.float32]
    """[n, 4]: left, top, right, bottom in pixels of the picture."""
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    """[n]: positions in the set's classes."""


def average_precision(truth: BoxSet, found: Sequence[Detections]) -> AveragePrecision:
    """COCO's average precision by pycocotools: the mean over the classes that ``truth`` has boxes of.

    At most 100 detections of a class count in an image.
    Ignored boxes count as crowds: detections on them are neither right nor wrong.

    Raises:
        CareError: ``truth`` has no box that counts, or a detection is not finite.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if truth.counted == 0:
        raise CareError(f"{truth.path} has no box that counts; the metric needs some")
    if not all(np.isfinite(one.boxes).all() and np.isfinite(one.scores).all() for one in found):
        raise CareError("a detection is not finite: the detector diverged; lower lr or lengthen warmup")  # NaN would match every box
    annotations: list[dict[str, Any]] = [
        {"image_id": n, "category_id": int(label), "bbox": _bbox(box), "iscrowd": int(ignored)}
        for n, picture in enumerate(truth.pictures)
        for box, label, ignored in zip(picture.boxes, picture.labels, picture.ignored, strict=True)
    ]
    results = [
        {"image_id": n, "category_id": int(label), "bbox": _bbox(box), "score": float(score)}
        for n, (_, one) in enumerate(zip(truth.pictures, found, strict=True))
        for box, score, label in zip(*one, strict=True)
    ]
    if not results:
        return AveragePrecision(0, 0, 0)
    with redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
        coco = COCO()
        coco.dataset = {
            "images": [{"id": n} for n in range(len(truth.pictures))],
            "categories": [{"id": n, "name": name} for n, name in enumerate(truth.classes)],
            # an id of 0 would read as "no match"
            "annotations": [one | {"id": n, "area": one["bbox"][2] * one["bbox"][3]} for n, one in enumerate(annotations, 1)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return AveragePrecision(*(100 * float(value) for value in evaluation.stats[:3]))


def _bbox(box: NDArray[np.float32]) -> list[float]:
    left, top, right, bottom = map(float, box)
    return [left, top, right - left, bottom - top]
