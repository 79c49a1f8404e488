"""COCO's average precision of boxes and masks, by pycocotools or by faster-coco-eval."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any, Literal
import numpy as np
from care.errors import CareError
from care.evaluate.average_precision import (
    THRESHOLDS,
    AveragePrecision,
    Detections,
    Judged,
    check_countable,
    check_finite,
)
from care.evaluate.coco_results import Json, coco_box
from care.evaluate.faster_coco import count_faster
from care.evaluate.matches import Matches
from care.evaluate.predictions import as_percent
from shards.boxes import BoxSet, Picture

Backend = Literal["pycocotools", "faster-coco-eval"]
RECALLS = np.linspace(0, 1, 101)  # pycocotools' own
# areas below 32², below 96² and from there on, in pixels
SIZES = ("small", "medium", "large")


def average_precision(
    truth: BoxSet,
    detections: Sequence[Detections],
    *,
    masks: bool = False,
    backend: Backend = "pycocotools",
) -> AveragePrecision:
    """COCO's average precision: that of ``judge_coco``, whose arguments these are."""
    return judge_coco(truth, detections, masks=masks, backend=backend).precision


def judge_coco(
    truth: BoxSet,
    detections: Sequence[Detections],
    *,
    masks: bool = False,
    backend: Backend = "pycocotools",
) -> Judged:
    """COCO's average precision, the mean over the classes that have boxes.

    At most 100 detections of a class count in an image. Ignored boxes count as crowds: detections
    on them, or on parts of them, are neither right nor wrong.

    Args:
        truth: pictures with their boxes.
        detections: of every picture.
        masks: let the overlap be that of the masks; every box then needs one, as in COCO's files.
        backend: the package that matches and counts; figures are equal but for the last bits.

    Raises:
        CareError: no box counts, a detection is not finite, or a mask is missing or not of its
            picture's size.

    Source: pycocotools, https://cocodataset.org/#detection-eval.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    kind = "segm" if masks else "bbox"
    check_countable(truth)
    check_finite(detections)
    results = _results(truth, detections, masks)
    # pycocotools prints as it goes
    with redirect_stdout(None):
        coco = COCO()
        coco.dataset = _dataset(truth)
        coco.createIndex()
        if masks:
            for annotation in [*coco.dataset["annotations"], *results]:
                picture = truth.pictures[annotation["image_id"]]
                annotation["segmentation"] = _run_lengths(coco, annotation, picture)
        if not results:
            nothing = _nothing_found(truth)
            return Judged(AveragePrecision(0, 0, 0), [*nothing.values()], RECALLS, [*nothing])
        if backend == "faster-coco-eval":
            stats, classes = count_faster(coco.dataset, results, kind)
            return _judged(stats, classes)
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return _judged(evaluation.stats.tolist(), _matches(evaluation, len(truth.pictures)))


def _judged(stats: Sequence[float], matches: dict[int, Matches]) -> Judged:
    """The record of COCO's figures and of the matches of each class, by its label."""
    precision = AveragePrecision(*(100 * float(value) for value in stats[:3]))
    return Judged(precision, [*matches.values()], RECALLS, [*matches], _by_size(stats))


def _by_size(stats: Sequence[float]) -> dict[str, float]:
    """COCO's average precision of small, medium and large objects, of the sizes that there are."""
    figures = dict(zip(SIZES, stats[3:6], strict=True))
    return {size: as_percent(share) for size, share in figures.items() if share >= 0}


def _dataset(truth: BoxSet) -> Json:
    """The set as a COCO file would have it, pictures and classes named by their positions."""
    annotations = list[Json]()
    for number, picture in enumerate(truth.pictures):
        for box, label, ignored, mask in zip(
            picture.boxes, picture.labels, picture.ignored, picture.masks, strict=True
        ):
            bbox = coco_box(box)
            annotations.append(
                {
                    "id": len(annotations) + 1,  # an id of 0 would read as "no match"
                    "image_id": number,
                    "category_id": int(label),
                    "bbox": bbox,
                    "area": bbox[2] * bbox[3],
                    "iscrowd": int(ignored),
                    "segmentation": mask,
                }
            )
    images = []
    for number, picture in enumerate(truth.pictures):
        width, height = picture.size
        images.append({"id": number, "width": width, "height": height})
    categories = [{"id": number, "name": name} for number, name in enumerate(truth.classes)]
    return {"images": images, "categories": categories, "annotations": annotations}


def _results(truth: BoxSet, detections: Sequence[Detections], masks: bool) -> list[Json]:
    """Detections as a COCO results file would have them."""
    results = list[Json]()
    for number, (_, in_picture) in enumerate(zip(truth.pictures, detections, strict=True)):
        shapes = (in_picture.masks or []) if masks else in_picture.boxes
        for shape, score, label in zip(shapes, in_picture.scores, in_picture.labels, strict=True):
            result: Json = {"image_id": number, "category_id": int(label), "score": float(score)}
            if masks:
                result["segmentation"] = shape
            else:
                result["bbox"] = coco_box(shape)
            results.append(result)
    return results


def _run_lengths(coco: Any, annotation: Json, picture: Picture) -> Json:
    """The mask of an annotation as an RLE of its picture's size.

    Raises:
        CareError: it has none, or one of another size, which pycocotools lets match nothing.
    """
    if not annotation["segmentation"]:
        raise CareError(
            f"a box of {picture.path} has no mask, and the AP of masks needs all; correct it, "
            "or judge by the boxes"
        )
    mask: Json = coco.annToRLE(annotation)
    height, width = mask["size"]
    if picture.size != (width, height):
        raise CareError(
            f"a mask of {picture.path} has {width} × {height} pixels, the image {picture.size}; "
            "correct the mask"
        )
    return mask


def _matches(evaluation: Any, pictures: int) -> dict[int, Matches]:
    """The matches that a ``COCOeval`` has found, of objects of every size, by label.

    Args:
        evaluation: after ``evaluate``.
        pictures: in the set.
    """
    classes = dict[int, Matches]()
    sizes = len(evaluation.params.areaRng)
    for number, label in enumerate(evaluation.params.catIds):
        # the first range of a class is that of all sizes
        first = number * sizes * pictures
        images = evaluation.evalImgs[first : first + pictures]
        matches = _matches_of_class(images)
        if matches is not None:
            classes[int(label)] = matches
    return classes


def _matches_of_class(images: list[Json | None]) -> Matches | None:
    """The matches of one class, or None if it has no object that counts.

    Args:
        images: pycocotools' matches in every picture, None where there is nothing of the class.
    """
    judged = [(number, image) for number, image in enumerate(images) if image]
    objects = np.zeros(len(images), np.int64)
    for number, image in judged:
        objects[number] = np.count_nonzero(image["gtIgnore"] == 0)
    if not objects.any():
        return None
    scores = np.concatenate([image["dtScores"] for _, image in judged])
    order = np.argsort(-scores, kind="stable")
    matched = np.concatenate([image["dtMatches"] > 0 for _, image in judged], 1)[:, order]
    ignored = np.concatenate([image["dtIgnore"] for _, image in judged], 1)[:, order] > 0
    counts = [len(image["dtScores"]) for _, image in judged]
    pictures = np.repeat([number for number, _ in judged], counts)
    return Matches(
        right=matched & ~ignored,
        wrong=~matched & ~ignored,
        pictures=pictures[order],
        objects=objects,
    )


def _nothing_found(truth: BoxSet) -> dict[int, Matches]:
    """The matches of no detection at all, by label."""
    nothing = np.zeros((len(THRESHOLDS), 0), np.bool_)
    counted = [picture.labels[~picture.ignored] for picture in truth.pictures]
    classes = dict[int, Matches]()
    for label in np.unique(np.concatenate(counted)).tolist():
        objects = [np.count_nonzero(labels == label) for labels in counted]
        classes[label] = Matches(
            nothing, nothing, np.zeros(0, np.int64), np.array(objects, np.int64)
        )
    return classes
