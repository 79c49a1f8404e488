"""COCO's metrics of boxes and masks."""

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
    """What was found in one picture: left, top, right, bottom [n, 4] in its pixels, positions in the set's classes, RLEs of its size."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: list[dict[str, Any]] | None = None


def check(truth: BoxSet, found: Sequence[Detections]) -> None:
    """Raise a ``CareError`` if ``truth`` has no box that counts, or a detection is not finite: NaN would match every box."""
    if truth.counted == 0:
        raise CareError(f"{truth.path} has no box that counts; the metric needs some")
    if not all(np.isfinite(one.boxes).all() and np.isfinite(one.scores).all() for one in found):
        raise CareError("a detection is not finite: the detector diverged; lower lr or lengthen warmup")


def average_precision(truth: BoxSet, found: Sequence[Detections], *, masks: bool = False) -> AveragePrecision:
    """COCO's average precision by pycocotools: the mean over the classes that ``truth`` has boxes of.

    At most 100 detections of a class count in an image. Ignored boxes count as crowds: detections on them, or on parts of them, are
    neither right nor wrong. With ``masks`` the overlap is that of the masks, and every box needs one, as in COCO's own files: a
    ``CareError`` if one is missing or not of its picture's size, as for what ``check`` refuses.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    from pycocotools.mask import area

    check(truth, found)
    annotations: list[dict[str, Any]] = [
        {"image_id": n, "category_id": int(label), "bbox": _bbox(box), "iscrowd": int(ignored), "segmentation": mask}
        for n, picture in enumerate(truth.pictures)
        for box, label, ignored, mask in zip(picture.boxes, picture.labels, picture.ignored, picture.masks, strict=True)
    ]
    results: list[dict[str, Any]] = [
        {"image_id": n, "category_id": int(label), "score": float(score)} | ({"segmentation": shape} if masks else {"bbox": _bbox(shape)})
        for n, (_, one) in enumerate(zip(truth.pictures, found, strict=True))
        for shape, score, label in zip((one.masks or []) if masks else one.boxes, one.scores, one.labels, strict=True)
    ]
    with redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
        coco = COCO()
        coco.dataset = {
            "images": [{"id": n, "width": one.size[0], "height": one.size[1]} for n, one in enumerate(truth.pictures)],
            "categories": [{"id": n, "name": name} for n, name in enumerate(truth.classes)],
            # an id of 0 would read as "no match"
            "annotations": [one | {"id": n, "area": one["bbox"][2] * one["bbox"][3]} for n, one in enumerate(annotations, 1)],
        }  # fmt: skip
        coco.createIndex()
        for one in [*coco.dataset["annotations"], *results] if masks else ():
            picture = truth.pictures[one["image_id"]]
            if not one["segmentation"]:
                raise CareError(f"a box of {picture.path} has no mask, and the AP of masks needs all; correct it, or judge by the boxes")
            one["segmentation"] = coco.annToRLE(one)
            one["area"] = float(area(one["segmentation"]))
            if picture.size != (size := tuple(one["segmentation"]["size"]))[::-1]:  # which pycocotools lets match nothing
                raise CareError(f"a mask of {picture.path} has {size[1]} × {size[0]} pixels, the image {picture.size}; correct the mask")
        if not results:
            return AveragePrecision(0, 0, 0)
        evaluation = COCOeval(coco, coco.loadRes(results), "segm" if masks else "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return AveragePrecision(*(100 * float(value) for value in evaluation.stats[:3]))


def _bbox(box: NDArray[np.float32]) -> list[float]:
    left, top, right, bottom = map(float, box)
    return [left, top, right - left, bottom - top]
