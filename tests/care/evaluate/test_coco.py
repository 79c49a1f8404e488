from pathlib import Path

import numpy as np
import pytest

from care.errors import CareError
from care.evaluate import Detections, average_precision
from shards.boxes import BoxSet, Picture

CLASSES = ("ant", "bee", "cat", "dog")
A, B, BIG = (10, 10, 30, 40), (50, 50, 80, 90), (10, 10, 90, 90)
PERFECT, HALF = pytest.approx((100, 100, 100)), pytest.approx((50, 50, 50))


def truth(*pictures):
    """Pictures of (box, label[, ignored])."""
    made = []
    for n, rows in enumerate(pictures):
        boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
        ignored = np.array([any(row[2:]) for row in rows], np.bool_)
        made.append(Picture(Path(f"{n}.jpg"), (100, 100), boxes, np.array([row[1] for row in rows], np.int64), ignored))
    return BoxSet(Path("list.txt"), made, CLASSES, {}, "")


def found(*rows):
    """One picture's detections, from (box, label, score)."""
    boxes, scores = np.array([row[0] for row in rows], np.float32), np.array([row[2] for row in rows], np.float32)
    return Detections(boxes.reshape(-1, 4), scores, np.array([row[1] for row in rows], np.int64))


def iou(a, b):
    common = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def naive_ap(boxes, detections, threshold):
    of_classes = []
    for label in range(len(CLASSES)):
        free = [{k: box for k, box in enumerate(p.boxes.tolist()) if p.labels[k] == label} for p in boxes.pictures]
        wanted, hits, curve = sum(map(len, free)), 0, []
        if not wanted:
            continue
        rows = [
            (s, n, box) for n, one in enumerate(detections) for box, s, y in zip(*map(np.ndarray.tolist, one), strict=True) if y == label
        ]
        for rank, (_, n, box) in enumerate(sorted(rows, reverse=True), 1):
            best, k = max(((iou(box, other), k) for k, other in free[n].items()), default=(0, None))
            if best >= threshold:
                del free[n][k]
                hits += 1
            curve.append((hits / wanted, hits / rank))
        at = [max((precision for recall, precision in curve if recall >= point), default=0) for point in np.linspace(0, 1, 101)]
        of_classes.append(sum(at) / len(at))
    return 100 * sum(of_classes) / len(of_classes)


def draw(seed):
    """Crowded pictures, one without boxes and none with a dog; detections near the boxes, some twice, and anywhere."""
    rng = np.random.default_rng(seed)

    def box():
        left, top, width, height = rng.uniform((0, 0, 10, 10), (60, 60, 40, 40))
        return np.array([left, top, left + width, top + height])

    pictures, detections = [[(box(), int(rng.integers(3))) for _ in range(n)] for n in (6, 0, 12, 3, 9)], []
    for rows in pictures:
        near = [
            (b + rng.normal(0, 2, 4), y if rng.random() < 0.9 else 3 - y, rng.random()) for b, y in rows + rows[::2] if rng.random() < 0.8
        ]
        detections.append(found(*near, *((box(), int(rng.integers(4)), rng.random() / 2) for _ in range(4))))
    return truth(*pictures), detections


@pytest.mark.parametrize("seed", range(5))
def test_it_agrees_with_a_plain_loop(seed, capsys):
    got = average_precision(*draw(seed))
    assert capsys.readouterr() == ("", "")  # pycocotools would
    naive = [naive_ap(*draw(seed), threshold) for threshold in np.linspace(0.5, 0.95, 10)]
    assert got == pytest.approx((sum(naive) / 10, naive[0], naive[5]), abs=1e-6)
    assert 5 < got.ap75 < got.ap50 < 95


def test_perfect_and_no_detections():
    boxes = truth([(A, 0), (B, 0)], [], [(B, 3)])
    assert average_precision(boxes, [found((A, 0, 0.3), (B, 0, 0.9)), found(), found((B, 3, 0.1))]) == PERFECT
    assert average_precision(boxes, [found()] * 3) == (0, 0, 0)
    assert average_precision(boxes, [found(), found((A, 2, 0.9)), found((A, 3, 0.9))]) == (0, 0, 0)


def test_a_second_detection_of_a_box_is_wrong():
    boxes = truth([(A, 1), (B, 1)])
    between = average_precision(boxes, [found((A, 1, 0.9), (A, 1, 0.8), (B, 1, 0.7))])
    assert between == pytest.approx([100 * (51 + 50 * 2 / 3) / 101] * 3)  # a precision of 1 to a recall of 0.50, then of 2/3
    assert average_precision(boxes, [found((A, 1, 0.9), (A, 1, 0.6), (B, 1, 0.7))]) == PERFECT


@pytest.mark.parametrize(("height", "want"), [(60.5, (30, 100, 0)), (77, (60, 100, 100)), (48, (0, 0, 0))])
def test_each_threshold_asks_for_its_overlap(height, want):
    assert average_precision(truth([((0, 0, 50, 100), 0)]), [found(((0, 0, 50, height), 0, 0.9))]) == pytest.approx(want)


def test_classes_are_told_apart_and_those_without_boxes_left_out():
    boxes = truth([(A, 0), (B, 3)])
    assert average_precision(boxes, [found((A, 0, 0.9), (A, 1, 0.99), (B, 2, 0.99))]) == HALF
    assert average_precision(boxes, [found((A, 0, 0.9), (B, 0, 0.99), (B, 3, 0.1))]) == pytest.approx((75, 75, 75))


def test_a_false_alarm_where_nothing_is_counts():
    assert average_precision(truth([(A, 0)], []), [found((A, 0, 0.5)), found((A, 0, 0.9))]) == HALF
    assert average_precision(truth([(A, 0)], []), [found((A, 0, 0.5)), found((A, 0, 0.4))]) == PERFECT


def test_ignored_boxes_are_neither_missed_nor_found():
    boxes, right = truth([(A, 0), (B, 0, True)]), (A, 0, 0.5)
    assert average_precision(boxes, [found(right)]) == PERFECT
    assert average_precision(boxes, [found((B, 0, 0.9), (B, 0, 0.8), right)]) == PERFECT
    assert average_precision(boxes, [found(((60, 60, 65, 65), 0, 0.9), right)]) == PERFECT  # a small part of a crowd
    assert average_precision(boxes, [found((B, 0, 0.9))]) == (0, 0, 0)
    assert average_precision(boxes, [found(((0, 60, 20, 80), 0, 0.9), right)]) == HALF
    assert average_precision(truth([(A, 0), (B, 0)]), [found(right)]) == pytest.approx([100 * 51 / 101] * 3)
    assert average_precision(truth([(A, 0), (BIG, 0, True)]), [found(right)]) == PERFECT  # a box that counts goes first
    assert average_precision(truth([(A, 0), (B, 1, True)]), [found(right)]) == PERFECT


@pytest.mark.parametrize(("before", "want"), [(99, 1), (100, 0)])
def test_a_hundred_detections_of_a_picture_count(before, want):
    wrong = [((60, 60, 70, 70), 0, 0.5 + k / 1000) for k in range(before)]
    assert average_precision(truth([(A, 0)]), [found(*wrong, (A, 0, 0.1))]) == pytest.approx([want] * 3)


def test_without_a_box_that_counts_there_is_no_metric():
    for boxes in (truth([], []), truth([(A, 0, True)], [])):
        with pytest.raises(CareError, match=r"list.txt has no box that counts"):
            average_precision(boxes, [found((A, 0, 0.9)), found()])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_picture_needs_its_detections(count):
    with pytest.raises(ValueError):
        average_precision(truth([(A, 0)], []), [found((A, 0, 0.9))] * count)


@pytest.mark.parametrize("field", ["boxes", "scores"])
def test_detections_that_are_not_finite_are_refused(field):
    one = found(((2, 2, 8, 8), 0, 0.9))  # NaN overlaps everything, as pycocotools compares
    with pytest.raises(CareError, match="not finite"):
        average_precision(truth([((2, 2, 8, 8), 0)]), [one._replace(**{field: getattr(one, field) * np.nan})])
