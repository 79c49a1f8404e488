from pathlib import Path
import numpy as np
import pytest
from care.errors import CareError
from care.evaluate.average_precision import Detections
from care.evaluate.matches import mean_precision
from care.evaluate.resampling import DETECTION_DRAWS, resamples
from care.evaluate.voc_metric import judge_voc
from care.evaluate.voc_metric import voc_average_precision as average_precision
from shards import boxes
from shards.boxes import BoxSet, Picture

CLASSES = ("ant", "bee", "cat", "dog")
A, B, FAR = (
    (11, 11, 30, 40),
    (51, 51, 80, 90),
    (95, 95, 99, 99),
)  # xmin, ymin, xmax, ymax, from 1 and inclusive
PERFECT, NOTHING = pytest.approx((100, 100, 100)), (0, 0, 0)


def truth(*images):
    """Images of (box, label[, difficult]), with VOC's corners."""
    made = []
    for n, rows in enumerate(images):
        corners = np.array([row[0] for row in rows], np.float32).reshape(-1, 4) - (1, 1, 0, 0)
        difficult = np.array([any(row[2:]) for row in rows], np.bool_)
        labels, nothing = np.array([row[1] for row in rows], np.int64), [[] for _ in rows]
        made.append(
            Picture(
                Path(f"{n}.jpg"),
                (100, 100),
                corners.astype(np.float32),
                labels,
                difficult,
                np.zeros_like(difficult),
                nothing,
            )
        )
    return BoxSet(Path("list.txt"), made, CLASSES, {}, "", True)


def found(*rows):
    """One image's detections, of (box, label, score), with VOC's corners."""
    corners = np.array([row[0] for row in rows], np.float64).reshape(-1, 4) - (1, 1, 0, 0)
    scores = np.array([row[2] for row in rows], np.float32)
    return Detections(
        corners.astype(np.float32), scores, np.array([row[1] for row in rows], np.int64)
    )


def corners_of(box):
    left, top, right, bottom = map(float, box)
    return left + 1, top + 1, right, bottom


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return common / (sum(areas) - common)


def naive(data, detections):
    """The devkit's way: one detection after the other, for each class and threshold again."""
    table = []
    for label in range(len(data.classes)):
        objects = [
            [
                [corners_of(p.boxes[k]), bool(p.ignored[k]), False]
                for k in range(len(p.boxes))
                if p.labels[k] == label
            ]
            for p in data.pictures
        ]
        wanted = sum(not ignored for image in objects for _, ignored, _ in image)
        if wanted == 0:
            continue
        rows = [
            (-float(one.scores[k]), n, k)
            for n, one in enumerate(detections)
            for k in range(len(one.scores))
            if one.labels[k] == label
        ]
        of_class = []
        for percent in range(50, 100, 5):
            for image in objects:
                for thing in image:
                    thing[2] = False
            right, wrong, curve = 0, 0, []
            for _, n, k in sorted(rows):
                best, nearest = -1, None
                for thing in objects[n]:
                    if (overlap := iou(corners_of(detections[n].boxes[k]), thing[0])) > best:
                        best, nearest = overlap, thing
                if best <= percent / 100:
                    wrong += 1
                elif not nearest[1] and not nearest[2]:
                    nearest[2] = True
                    right += 1
                elif not nearest[1]:
                    wrong += 1
                curve.append((right / wanted, right / (right + wrong) if right + wrong else 0))
            at = [
                max((precision for recall, precision in curve if recall >= 0.1 * step), default=0)
                for step in range(11)
            ]
            of_class.append(100 * sum(at) / 11)
        table.append(of_class)
    columns = [sum(column) / len(table) for column in zip(*table, strict=True)]
    return sum(columns) / 10, columns[0], columns[5]


def draw(seed):
    """Crowded images, some without objects, none with a dog, and detections.

    These are near objects, some twice, and anywhere, many with equal scores.
    """
    rng = np.random.default_rng(seed)
    whole = seed % 2 == 0  # whole pixels: overlaps tie, and meet thresholds exactly

    def box():
        left, top, width, height = rng.integers((1, 1, 4, 4), (60, 60, 40, 40))
        return np.array([left, top, left + width - 1, top + height - 1])

    images, detections = (
        [
            [(box(), int(rng.integers(3)), rng.random() < 0.2) for _ in range(n)]
            for n in (6, 0, 12, 3, 9, 30, 0)
        ],
        [],
    )
    for rows in images:
        near = []
        for corners, label, _ in rows + rows[::2]:
            moved = corners + (rng.integers(-1, 2, 4) if whole else rng.normal(0, 1.5, 4))
            if rng.random() < 0.8 and (moved[2:] > moved[:2]).all():
                near.append(
                    (
                        moved,
                        label if rng.random() < 0.9 else 3 - label,
                        rng.integers(10) / 10 if whole else rng.random(),
                    )
                )
        detections.append(
            found(*near, *((box(), int(rng.integers(4)), rng.random() / 2) for _ in range(4)))
        )
    return truth(*images), detections


@pytest.mark.parametrize("seed", range(12))
def test_it_agrees_with_a_plain_loop(seed):
    got = average_precision(*draw(seed))
    assert got == pytest.approx(naive(*draw(seed)), abs=1e-9)
    assert 5 < got.ap < got.ap50 < 95


def test_perfect_and_no_detections():
    data = truth([(A, 0), (B, 0)], [], [(B, 3)])
    assert (
        average_precision(data, [found((A, 0, 0.3), (B, 0, 0.9)), found(), found((B, 3, 0.1))])
        == PERFECT
    )
    assert average_precision(data, [found()] * 3) == NOTHING
    assert average_precision(data, [found(), found((A, 2, 0.9)), found((A, 3, 0.9))]) == NOTHING


@pytest.mark.parametrize(
    ("height", "want"),
    [(50, (0, 0, 0)), (51, (10, 100, 0)), (75, (50, 100, 0)), (76, (60, 100, 100))],
)
def test_an_overlap_has_to_exceed_the_threshold_and_counts_whole_pixels(height, want):
    # 1…height of 1…100 is exactly height per cent with the + 1 of inclusive sides, and less
    # without
    assert average_precision(
        truth([((1, 1, 50, 100), 0)]), [found(((1, 1, 50, height), 0, 0.9))]
    ) == pytest.approx(want)


def test_a_second_detection_of_an_object_is_wrong():
    between = average_precision(
        truth([(A, 1), (B, 1)]), [found((A, 1, 0.9), (A, 1, 0.8), (B, 1, 0.7))]
    )
    assert between == pytest.approx(
        [100 * (6 + 5 * 2 / 3) / 11] * 3
    )  # a precision of 1 up to a recall of 0.5, then of 2/3
    assert (
        average_precision(truth([(A, 1), (B, 1)]), [found((A, 1, 0.9), (A, 1, 0.6), (B, 1, 0.7))])
        == PERFECT
    )


def test_a_detection_asks_for_the_nearest_object_even_if_that_is_found():
    other, second = (11, 11, 30, 36), (11, 11, 30, 39)
    assert (
        0.96 < iou(second, A) < 0.97 > iou(second, other) > 0.89
    )  # COCO would give it the other, which is free
    assert average_precision(
        truth([(A, 0), (other, 0)]), [found((A, 0, 0.9), (second, 0, 0.8))]
    ) == pytest.approx([100 * 6 / 11] * 3)


def test_two_objects_with_one_detection_are_half_found():
    assert average_precision(truth([(A, 0), (A, 0)]), [found((A, 0, 0.9))]) == pytest.approx(
        [100 * 6 / 11] * 3
    )
    assert average_precision(
        truth([(A, 0)], [(A, 0)]), [found((A, 0, 0.9)), found()]
    ) == pytest.approx([100 * 6 / 11] * 3)


def test_equal_scores_are_taken_in_their_order():
    data, right, wrong = truth([(A, 0)], [(A, 0)]), (A, 0, 0.5), (FAR, 0, 0.5)
    assert average_precision(data, [found(right), found(right, wrong)]) == PERFECT
    assert average_precision(data, [found(wrong, right), found(right)]) == pytest.approx(
        [100 * 2 / 3] * 3
    )
    assert average_precision(data, [found(right, wrong), found(right)]) == pytest.approx(
        [100 * (6 + 5 * 2 / 3) / 11] * 3
    )


def test_difficult_objects_are_neither_missed_nor_found():
    data, right = truth([(A, 0), (B, 0, True)]), (A, 0, 0.5)
    assert average_precision(data, [found(right)]) == PERFECT
    assert average_precision(data, [found((B, 0, 0.9), (B, 0, 0.8), right)]) == PERFECT
    assert average_precision(data, [found((B, 0, 0.9))]) == NOTHING
    assert average_precision(data, [found(((61, 61, 65, 65), 0, 0.9), right)]) == pytest.approx(
        [50] * 3
    )  # a part of one is wrong
    assert (
        average_precision(truth([(A, 0), (B, 1, True)]), [found(right, (B, 1, 0.9))]) == PERFECT
    )  # a class with no other is left out


def test_crowds_are_ignored_too():
    data = truth([(A, 0), (B, 0)])
    (picture,) = data.pictures
    data = data._replace(pictures=[picture._replace(crowd=np.array([False, True]))])
    assert average_precision(data, [found((B, 0, 0.9), (A, 0, 0.5))]) == PERFECT


def test_classes_are_told_apart_and_those_without_objects_left_out():
    data = truth([(A, 0), (B, 3)])
    assert average_precision(
        data, [found((A, 0, 0.9), (A, 1, 0.99), (B, 2, 0.99))]
    ) == pytest.approx([50] * 3)
    assert average_precision(
        data, [found((A, 0, 0.9), (B, 0, 0.99), (B, 3, 0.1))]
    ) == pytest.approx([75] * 3)


def test_a_false_alarm_where_nothing_is_counts():
    for empty in ([], [(B, 1, True)]):
        data = truth([(A, 0)], empty)
        assert average_precision(data, [found((A, 0, 0.5)), found((A, 0, 0.9))]) == pytest.approx(
            [50] * 3
        )
        assert average_precision(data, [found((A, 0, 0.5)), found((A, 0, 0.4))]) == PERFECT
    assert average_precision(
        truth([], [(A, 0)]), [found((A, 0, 0.9)), found((A, 0, 0.5))]
    ) == pytest.approx([50] * 3)


def test_the_recall_points_are_the_reference_codes_floats():
    """0.1 · 3 is above 3 / 10 in binary: 3 of 10 objects reach three points, not four."""
    data = truth(*([(A, 0)] for _ in range(10)))
    for hits, points in ((1, 2), (2, 3), (3, 3), (4, 5), (6, 6), (7, 7), (8, 9), (10, 11)):
        got = average_precision(data, [found((A, 0, 0.9))] * hits + [found()] * (10 - hits))
        assert got == pytest.approx([100 * points / 11] * 3), hits


def test_without_an_object_that_counts_there_is_no_metric():
    for data in (truth([], []), truth([(A, 0, True)], [])):
        with pytest.raises(CareError, match=r"list.txt has no box that counts"):
            average_precision(data, [found((A, 0, 0.9)), found()])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_picture_needs_its_detections(count):
    with pytest.raises(ValueError):
        average_precision(truth([(A, 0)], []), [found((A, 0, 0.9))] * count)


@pytest.mark.parametrize("field", ["boxes", "scores"])
def test_detections_that_are_not_finite_are_refused(field):
    one = found((A, 0, 0.9))
    with pytest.raises(CareError, match="not finite"):
        average_precision(truth([(A, 0)]), [one._replace(**{field: getattr(one, field) * np.nan})])


def test_blood_cells(unpacked):
    """A devkit's own files; detections are its objects moved, doubled, mistaken and left out."""
    (root,) = unpacked("bccd.tar").rglob("BCCD")
    data, rng, detections = (
        boxes.load(root / "ImageSets" / "Main" / "test.txt"),
        np.random.default_rng(0),
        [],
    )
    assert data.voc
    pictures = [
        picture._replace(difficult=rng.random(len(picture.boxes)) < 0.1)
        for picture in data.pictures
    ]
    for picture in pictures:
        kept = np.concatenate(
            [np.flatnonzero(rng.random(len(picture.boxes)) < share) for share in (0.9, 0.3)]
        )
        moved = (picture.boxes[kept] + rng.normal(0, 6, (len(kept), 4))).astype(np.float32)
        labels = np.where(
            rng.random(len(kept)) < 0.9, picture.labels[kept], rng.integers(3, size=len(kept))
        )
        detections.append(
            Detections(moved, rng.random(len(kept)).astype(np.float32).round(2), labels)
        )
    data = data._replace(pictures=pictures)
    got = average_precision(data, detections)
    assert got == pytest.approx(naive(data, detections), abs=1e-9)
    assert 20 < got.ap < got.ap50 < 90


# on resampled pictures


def repeated(data, detections, weights):
    """Every picture, with its detections, as often as a draw has it."""
    rows = np.repeat(np.arange(len(weights)), weights)
    return data._replace(pictures=[data.pictures[n] for n in rows]), [detections[n] for n in rows]


# of seeds without equal scores: the copies of one detection follow each other
@pytest.mark.parametrize("seed", [1, 3, 5])
def test_resampled_pictures_count_as_often_as_they_are_drawn(seed):
    """The reference is the devkit's way, on a set that has them so often."""
    data, detections = draw(seed)
    figures = judge_voc(data, detections).resampled()
    assert len(figures) == DETECTION_DRAWS
    assert len({*figures}) > 25
    for weights, got in zip(resamples(len(data.pictures), 15), figures, strict=False):
        assert got == pytest.approx(naive(*repeated(data, detections, weights))[0], abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_every_picture_once_is_the_metric_itself(seed):
    judged = judge_voc(*draw(seed))
    weights = np.ones(len(judged.classes[0].objects), np.int64)
    ap = 100 * mean_precision(judged.classes, judged.recalls, weights)
    assert (ap.mean(), ap[0], ap[5]) == pytest.approx(judged.precision, abs=1e-9)


def test_a_draw_without_an_object_is_zero():
    judged = judge_voc(truth([(A, 0)], []), [found((A, 0, 0.9)), found((A, 0, 0.3))])
    for weights, got in zip(resamples(2, 30), judged.resampled(30), strict=True):
        assert got == (100 if weights[0] else 0)
