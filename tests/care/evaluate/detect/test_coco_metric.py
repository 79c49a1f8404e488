"""COCO's average precision of boxes, also on resampled pictures."""

import numpy as np
import pytest
from coco_cases import BIG, HALF, PERFECT, A, B, draw, draw_masks, found, naive_ap, truth
from care.errors import CareError
from care.evaluate.coco_metric import average_precision, judge_coco
from care.evaluate.matches import mean_precision
from care.evaluate.resampling import DETECTION_DRAWS, resamples


@pytest.mark.parametrize("seed", range(5))
def test_it_agrees_with_a_plain_loop(seed, capsys):
    got = average_precision(*draw(seed))
    assert capsys.readouterr() == ("", "")  # pycocotools would
    naive = [naive_ap(*draw(seed), threshold) for threshold in np.linspace(0.5, 0.95, 10)]
    assert got == pytest.approx((sum(naive) / 10, naive[0], naive[5]), abs=1e-6)
    assert 5 < got.ap75 < got.ap50 < 95


def test_perfect_and_no_detections():
    data = truth([(A, 0), (B, 0)], [], [(B, 3)])
    assert (
        average_precision(data, [found((A, 0, 0.3), (B, 0, 0.9)), found(), found((B, 3, 0.1))])
        == PERFECT
    )
    assert average_precision(data, [found()] * 3) == (0, 0, 0)
    assert average_precision(data, [found(), found((A, 2, 0.9)), found((A, 3, 0.9))]) == (0, 0, 0)


def test_a_second_detection_of_a_box_is_wrong():
    data = truth([(A, 1), (B, 1)])
    between = average_precision(data, [found((A, 1, 0.9), (A, 1, 0.8), (B, 1, 0.7))])
    assert between == pytest.approx(
        [100 * (51 + 50 * 2 / 3) / 101] * 3
    )  # a precision of 1 to a recall of 0.50, then of 2/3
    assert average_precision(data, [found((A, 1, 0.9), (A, 1, 0.6), (B, 1, 0.7))]) == PERFECT


@pytest.mark.parametrize(
    ("height", "want"), [(60.5, (30, 100, 0)), (77, (60, 100, 100)), (48, (0, 0, 0))]
)
def test_each_threshold_asks_for_its_overlap(height, want):
    assert average_precision(
        truth([((0, 0, 50, 100), 0)]), [found(((0, 0, 50, height), 0, 0.9))]
    ) == pytest.approx(want)


def test_classes_are_told_apart_and_those_without_boxes_left_out():
    data = truth([(A, 0), (B, 3)])
    assert average_precision(data, [found((A, 0, 0.9), (A, 1, 0.99), (B, 2, 0.99))]) == HALF
    assert average_precision(
        data, [found((A, 0, 0.9), (B, 0, 0.99), (B, 3, 0.1))]
    ) == pytest.approx((75, 75, 75))


def test_a_false_alarm_where_nothing_is_counts():
    assert average_precision(truth([(A, 0)], []), [found((A, 0, 0.5)), found((A, 0, 0.9))]) == HALF
    assert (
        average_precision(truth([(A, 0)], []), [found((A, 0, 0.5)), found((A, 0, 0.4))]) == PERFECT
    )


def test_ignored_boxes_are_neither_missed_nor_found():
    data, right = truth([(A, 0), (B, 0, True)]), (A, 0, 0.5)
    assert average_precision(data, [found(right)]) == PERFECT
    assert average_precision(data, [found((B, 0, 0.9), (B, 0, 0.8), right)]) == PERFECT
    assert (
        average_precision(data, [found(((60, 60, 65, 65), 0, 0.9), right)]) == PERFECT
    )  # a small part of a crowd
    assert average_precision(data, [found((B, 0, 0.9))]) == (0, 0, 0)
    assert average_precision(data, [found(((0, 60, 20, 80), 0, 0.9), right)]) == HALF
    assert average_precision(truth([(A, 0), (B, 0)]), [found(right)]) == pytest.approx(
        [100 * 51 / 101] * 3
    )
    assert (
        average_precision(truth([(A, 0), (BIG, 0, True)]), [found(right)]) == PERFECT
    )  # a box that counts goes first
    assert average_precision(truth([(A, 0), (B, 1, True)]), [found(right)]) == PERFECT


@pytest.mark.parametrize(("before", "want"), [(99, 1), (100, 0)])
def test_a_hundred_detections_of_a_picture_count(before, want):
    wrong = [((60, 60, 70, 70), 0, 0.5 + k / 1000) for k in range(before)]
    assert average_precision(truth([(A, 0)]), [found(*wrong, (A, 0, 0.1))]) == pytest.approx(
        [want] * 3
    )


def test_without_a_box_that_counts_there_is_no_metric():
    for data in (truth([], []), truth([(A, 0, True)], [])):
        with pytest.raises(CareError, match=r"list.txt has no box that counts"):
            average_precision(data, [found((A, 0, 0.9)), found()])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_picture_needs_its_detections(count):
    with pytest.raises(ValueError):
        average_precision(truth([(A, 0)], []), [found((A, 0, 0.9))] * count)


@pytest.mark.parametrize("field", ["boxes", "scores"])
def test_detections_that_are_not_finite_are_refused(field):
    one = found(((2, 2, 8, 8), 0, 0.9))  # NaN overlaps everything, as pycocotools compares
    with pytest.raises(CareError, match="not finite"):
        average_precision(
            truth([((2, 2, 8, 8), 0)]), [one._replace(**{field: getattr(one, field) * np.nan})]
        )


def repeated(data, detections, weights):
    """Every picture, with its detections, as often as a draw has it."""
    rows = np.repeat(np.arange(len(weights)), weights)
    return data._replace(pictures=[data.pictures[n] for n in rows]), [detections[n] for n in rows]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("masks", [False, True])
def test_resampled_pictures_count_as_often_as_they_are_drawn(seed, masks):
    """The reference is pycocotools, on a set that has them so often."""
    data, detections = draw_masks(seed)[:2] if masks else draw(seed)
    judged, counted = judge_coco(data, detections, masks=masks), 0
    for weights, got in zip(resamples(len(data.pictures), 25), judged.resampled(), strict=False):
        pictures, found_in = repeated(data, detections, weights)
        if any(len(picture.boxes) for picture in pictures.pictures):
            want = average_precision(pictures, found_in, masks=masks)
            assert got == pytest.approx(want.ap, abs=1e-3)
            counted += 1
    assert counted > 20
    assert len(judged.resampled()) == DETECTION_DRAWS
    assert len({*judged.resampled()}) > 10


@pytest.mark.parametrize("seed", range(3))
def test_every_picture_once_is_the_metric_itself(seed):
    for judged in (judge_coco(*draw(seed)), judge_coco(*draw_masks(seed)[:2], masks=True)):
        weights = np.ones(len(judged.classes[0].objects), np.int64)
        ap = 100 * mean_precision(judged.classes, judged.recalls, weights)
        assert (ap.mean(), ap[0], ap[5]) == pytest.approx(judged.precision, abs=1e-9)


def test_crowds_and_false_alarms_on_resampled_pictures():
    data = truth([(A, 0), (B, 0, True)], [], [(A, 0), (A, 1)])
    first, last = found((B, 0, 0.9), (A, 0, 0.5)), found((A, 0, 0.3), (B, 1, 0.2))
    detections = [first, found((A, 0, 0.7)), last]
    judged = judge_coco(data, detections)
    for weights, got in zip(resamples(3, 20), judged.resampled(20), strict=True):
        pictures, found_in = repeated(data, detections, weights)
        some = weights[[0, 2]].any()
        want = average_precision(pictures, found_in).ap if some else 0
        assert got == pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize("seed", range(2))
def test_the_precision_of_each_class_is_that_of_the_class_alone(seed):
    data, detections = draw(seed)
    by_class = judge_coco(data, detections).by_class(data.classes)
    assert len(by_class) > 1
    for name, value in by_class.items():
        label = data.classes.index(name)
        alone = []
        for picture in data.pictures:
            rows = picture.labels == label
            alone.append(
                picture._replace(
                    boxes=picture.boxes[rows],
                    labels=picture.labels[rows],
                    difficult=picture.difficult[rows],
                    crowd=picture.crowd[rows],
                    masks=[[]] * int(rows.sum()),
                )
            )
        want = average_precision(data._replace(pictures=alone), detections)
        assert value == pytest.approx(want.ap, abs=1e-3)
    assert np.mean([*by_class.values()]) == pytest.approx(
        average_precision(data, detections).ap, abs=1e-3
    )


def test_the_precision_of_sizes_is_of_those_that_there_are():
    """Areas are below 32 ² pixels, below 96 ², and larger; A has 600 of them."""
    data = truth([(A, 0), (BIG, 1)])
    judged = judge_coco(data, [found((A, 0, 0.9), (B, 1, 0.5))])
    assert judged.by_size == {"small": 100.0, "medium": 0.0}
    assert judge_coco(truth([(A, 0)]), [found()]).by_size == {}


def test_without_detections_every_draw_is_zero():
    judged = judge_coco(truth([(A, 0)], [(B, 1)], [(A, 3, True)]), [found()] * 3)
    assert judged.by_class(("ant", "bee", "cat", "dog")) == {"ant": 0.0, "bee": 0.0}
    assert judged.resampled() == [0.0] * DETECTION_DRAWS
