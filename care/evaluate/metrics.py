"""Metrics of boxes and masks: COCO's and Pascal VOC's."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any, NamedTuple
import numpy as np
from numpy.typing import NDArray
from care.errors import CareError
from care.evaluate.matches import Matches, mean_precision, resampled_precision
from care.evaluate.resampling import DETECTION_DRAWS
from shards.boxes import BoxSet

THRESHOLDS = np.arange(50, 100, 5) / 100
RECALLS = np.arange(
    0, 1.1, 0.1
)  # with detectron2's rounding: 0.3, 0.6 and 0.7 are larger, so that 3 of 10 objects do not reach 0.3
COCO_RECALLS = np.linspace(0, 1, 101)  # pycocotools' own


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
