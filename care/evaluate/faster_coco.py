"""COCO's average precision by faster-coco-eval, whose matching is compiled: equal figures, sooner.

The package tells which objects detections have matched at its lowest threshold alone; so each
threshold is counted by itself, and what Pascal VOC and COCO make of matches stays as it is.
"""

import copy
import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
import numpy as np
from numpy.typing import NDArray
from care.errors import CareError
from care.evaluate.average_precision import THRESHOLDS
from care.evaluate.matches import Matches

# as the package has them
AT_MOST = 100  # detections of a class in an image


class FasterFigures(NamedTuple):
    """What the package has counted.

    Attributes:
        stats: COCO's twelve figures, from 0 to 1, -1 of what is not there.
        matches: of each class that has an object that counts, by its label.
    """

    stats: Sequence[float]
    matches: dict[int, Matches]


class _Detected(NamedTuple):
    """Detections of one class, the highest score first.

    Attributes:
        ids: of the results.
        pictures: numbers of their pictures.
    """

    ids: NDArray[np.int64]
    pictures: NDArray[np.int64]


def check_installed() -> None:
    """Refuse the package where it is missing, before a detector is trained.

    Raises:
        CareError: It is not installed.
    """
    try:
        import faster_coco_eval  # noqa: F401
    except ImportError:
        raise CareError(
            "faster-coco-eval is not installed; pip install 'care-ssl[coco]', or leave"
            " --metric-backend out"
        ) from None


def count_faster(
    dataset: Mapping[str, Any], results: Sequence[Mapping[str, Any]], kind: str
) -> FasterFigures:
    """Count detections as ``COCOeval`` does.

    Args:
        dataset: the annotated pictures, as a COCO file has them; pictures by their numbers.
        results: detections as a results file has them, at least one.
        kind: "bbox" or "segm".

    Raises:
        CareError: The package is missing, or has another interface than versions 1.6 to 1.8.
    """
    check_installed()
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(copy.deepcopy(dict(dataset)))
    detections = truth.loadRes([dict(result) for result in results])
    evaluation = COCOeval_faster(truth, detections, kind, print_function=logging.debug)
    evaluation.run()
    params = evaluation.params
    overlaps = [[evaluation.ious[i, c] for c in params.catIds] for i in params.imgIds]
    matched = [_matched_at(evaluation, overlaps, threshold) for threshold in THRESHOLDS.tolist()]
    stats = [float(value) for value in evaluation.stats[:12]]
    return FasterFigures(stats, _by_class(evaluation, matched))


def _matched_at(
    evaluation: Any, overlaps: Sequence[Sequence[Any]], threshold: float
) -> NDArray[np.int64]:
    """The ids of the objects that detections have matched at one threshold, by ids of these.

    Ids begin with 1; a detection without an object has 0.

    Args:
        evaluation: of the package.
        overlaps: that it has computed, by picture and class.
        threshold: of the overlap.
    """
    from faster_coco_eval import faster_eval_api_cpp

    params = copy.copy(evaluation.params)
    params.iouThrs = np.array([threshold])
    # of objects of every size
    params.areaRng = params.areaRng[:1]
    params.areaRngLbl = params.areaRngLbl[:1]
    counted = faster_eval_api_cpp.COCOevalEvaluateAccumulate(
        params,
        overlaps,
        evaluation.gt_dataset,
        evaluation.dt_dataset,
        params.imgIds,
        params.catIds,
        True,
    )
    things = np.zeros(len(evaluation.cocoDt.anns) + 1, np.int64)
    for pair in counted["matched"]:
        detection, _, thing = pair.partition("_")
        things[int(detection)] = int(thing)
    return things


def _by_class(evaluation: Any, matched: Sequence[NDArray[np.int64]]) -> dict[int, Matches]:
    """The matches of each class that has an object that counts, by its label.

    Args:
        evaluation: of the package.
        matched: of each threshold, as ``_matched_at`` has them.
    """
    pictures = len(evaluation.params.imgIds)
    is_crowd = np.zeros(len(evaluation.cocoGt.anns) + 1, np.bool_)
    objects = dict[int, NDArray[np.int64]]()
    for thing in evaluation.cocoGt.anns.values():
        is_crowd[thing["id"]] = thing["iscrowd"]
        if not thing["iscrowd"]:
            label = thing["category_id"]
            counts = objects.setdefault(label, np.zeros(pictures, np.int64))
            counts[thing["image_id"]] += 1
    by_label = _detected_by_class(evaluation.cocoDt.anns.values())
    classes = dict[int, Matches]()
    for label in sorted(objects):
        of_class = by_label.get(label, _Detected(np.zeros(0, np.int64), np.zeros(0, np.int64)))
        classes[label] = _matches(of_class, matched, is_crowd, objects[label])
    return classes


def _matches(
    detected: _Detected,
    matched: Sequence[NDArray[np.int64]],
    is_crowd: NDArray[np.bool_],
    objects: NDArray[np.int64],
) -> Matches:
    """What the detections of a class are: right, wrong, or on a crowd and neither."""
    things = np.stack([of_threshold[detected.ids] for of_threshold in matched])
    is_matched = things > 0
    return Matches(
        right=is_matched & ~is_crowd[things],
        wrong=~is_matched,
        pictures=detected.pictures,
        objects=objects,
    )


def _detected_by_class(results: Any) -> dict[int, _Detected]:
    """The detections of each class that count, in the order in which COCO counts them."""
    by_class = dict[int, list[tuple[int, float, int]]]()
    for result in results:
        row = (result["image_id"], -float(result["score"]), result["id"])
        by_class.setdefault(result["category_id"], []).append(row)
    by_label = dict[int, _Detected]()
    for label, rows in by_class.items():
        kept = list[tuple[int, float, int]]()
        for _, of_picture in itertools.groupby(sorted(rows), key=_picture_of):
            kept += itertools.islice(of_picture, AT_MOST)
        # stable: of equal scores the first picture's comes first
        kept.sort(key=_score_of)
        by_label[label] = _Detected(
            np.array([result for _, _, result in kept], np.int64),
            np.array([picture for picture, _, _ in kept], np.int64),
        )
    return by_label


def _picture_of(row: tuple[int, float, int]) -> int:
    return row[0]


def _score_of(row: tuple[int, float, int]) -> float:
    return row[1]
