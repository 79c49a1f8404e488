"""COCO's average precision of boxes and masks, by pycocotools."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any
import numpy as np
from numpy.typing import NDArray
from care.errors import CareError
from care.evaluate.average_precision import THRESHOLDS, AveragePrecision, Detections, Judged, check
from care.evaluate.matches import Matches
from shards.boxes import BoxSet

COCO_RECALLS = np.linspace(0, 1, 101)  # pycocotools' own


def average_precision(
    truth: BoxSet,
    found: Sequence[Detections],
    *,
    masks: bool = False,
) -> AveragePrecision:
    """COCO's average precision: that of ``judge_coco``."""
    return judge_coco(truth, found, masks=masks).precision


def judge_coco(truth: BoxSet, found: Sequence[Detections], *, masks: bool = False) -> Judged:
    """COCO's average precision by pycocotools: the mean over the classes that ``truth`` has boxes of.

    At most 100 detections of a class count in an image. Ignored boxes count as crowds: detections on them, or on parts of them, are
    neither right nor wrong. With ``masks`` the overlap is that of the masks, and every box needs one, as in COCO's own files: a
    ``CareError`` if one is missing or not of its picture's size, as for what ``check`` refuses.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    check(truth, found)
    annotations: list[dict[str, Any]] = [
        {
            "image_id": n,
            "category_id": int(label),
            "bbox": _bbox(box),
            "iscrowd": int(ignored),
            "segmentation": mask,
        }
        for n, picture in enumerate(truth.pictures)
        for box, label, ignored, mask in zip(
            picture.boxes, picture.labels, picture.ignored, picture.masks, strict=True
        )
    ]
    results: list[dict[str, Any]] = [
        {"image_id": n, "category_id": int(label), "score": float(score)}
        | ({"segmentation": shape} if masks else {"bbox": _bbox(shape)})
        for n, (_, one) in enumerate(zip(truth.pictures, found, strict=True))
        for shape, score, label in zip(
            (one.masks or []) if masks else one.boxes, one.scores, one.labels, strict=True
        )
    ]
    with redirect_stdout(None):  # pycocotools prints as it goes
        coco = COCO()
        coco.dataset = {  # whose annotations count from 1: an id of 0 would read as "no match"
            "images": [
                {"id": n, "width": one.size[0], "height": one.size[1]}
                for n, one in enumerate(truth.pictures)
            ],
            "categories": [{"id": n, "name": name} for n, name in enumerate(truth.classes)],
            "annotations": [
                one | {"id": n, "area": one["bbox"][2] * one["bbox"][3]}
                for n, one in enumerate(annotations, 1)
            ],
        }
        coco.createIndex()
        for one in [*coco.dataset["annotations"], *results] if masks else ():
            picture = truth.pictures[one["image_id"]]
            if not one["segmentation"]:
                raise CareError(
                    f"a box of {picture.path} has no mask, and the AP of masks needs all; correct it, or judge by the boxes"
                )
            one["segmentation"] = coco.annToRLE(one)
            if (
                picture.size != (size := tuple(one["segmentation"]["size"]))[::-1]
            ):  # which pycocotools lets match nothing
                raise CareError(
                    f"a mask of {picture.path} has {size[1]} × {size[0]} pixels, the image {picture.size}; correct the mask"
                )
        if not results:
            return Judged(AveragePrecision(0, 0, 0), _nothing_found(truth), COCO_RECALLS)
        evaluation = COCOeval(coco, coco.loadRes(results), "segm" if masks else "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = AveragePrecision(*(100 * float(value) for value in evaluation.stats[:3]))
    return Judged(precision, _coco_matches(evaluation, len(truth.pictures)), COCO_RECALLS)


def _coco_matches(evaluation: Any, pictures: int) -> list[Matches]:
    """The matches that a ``COCOeval`` has found, of objects of every size."""
    first, classes = 0, list[Matches]()
    for _ in evaluation.params.catIds:
        images = evaluation.evalImgs[first : first + pictures]
        first += pictures * len(evaluation.params.areaRng)  # the first range is that of all sizes
        filled = [(number, image) for number, image in enumerate(images) if image]
        objects = np.zeros(pictures, np.int64)
        for number, image in filled:
            objects[number] = np.count_nonzero(image["gtIgnore"] == 0)
        if not objects.any():
            continue
        scores = np.concatenate([image["dtScores"] for _, image in filled])
        order = np.argsort(-scores, kind="stable")
        matched = np.concatenate([image["dtMatches"] > 0 for _, image in filled], 1)[:, order]
        ignored = np.concatenate([image["dtIgnore"] for _, image in filled], 1)[:, order] > 0
        counts = [len(image["dtScores"]) for _, image in filled]
        homes = np.repeat([number for number, _ in filled], counts)
        classes.append(Matches(matched & ~ignored, ~matched & ~ignored, homes[order], objects))
    return classes


def _nothing_found(truth: BoxSet) -> list[Matches]:
    """The matches of no detection at all."""
    nothing = np.zeros((len(THRESHOLDS), 0), np.bool_)
    counts = [np.count_nonzero(~picture.ignored) for picture in truth.pictures]
    return [Matches(nothing, nothing, np.zeros(0, np.int64), np.array(counts, np.int64))]


def _bbox(box: NDArray[np.float32]) -> list[float]:
    left, top, right, bottom = map(float, box)
    return [left, top, right - left, bottom - top]
