import contextlib
import io
import json
from pathlib import Path
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import encode
from care.errors import CareError
from care.evaluate.average_precision import Detections
from care.evaluate.coco_metric import average_precision, judge_coco
from care.evaluate.matches import mean_precision
from care.evaluate.resampling import DETECTION_DRAWS, resamples
from shards import boxes
from shards.boxes import BoxSet, Picture

CLASSES = ("ant", "bee", "cat", "dog")
A, B, BIG = (10, 10, 30, 40), (50, 50, 80, 90), (10, 10, 90, 90)
PERFECT, HALF = pytest.approx((100, 100, 100)), pytest.approx((50, 50, 50))


def truth(*pictures, masks=None):
    """Pictures of (box, label[, ignored]); ``masks`` of every picture, as COCO writes them."""
    made = []
    for n, rows in enumerate(pictures):
        corners = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
        labels, ignored = (
            np.array([row[1] for row in rows], np.int64),
            np.array([any(row[2:]) for row in rows], np.bool_),
        )
        shapes = masks[n] if masks else [[] for _ in rows]
        made.append(
            Picture(
                Path(f"{n}.jpg"),
                (100, 100),
                corners,
                labels,
                np.zeros_like(ignored),
                ignored,
                shapes,
            )
        )
    return BoxSet(Path("list.txt"), made, CLASSES, {}, "")


def found(*rows, masks=None):
    """One picture's detections, from (box, label, score)."""
    corners, scores = (
        np.array([row[0] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.float32),
    )
    return Detections(
        corners.reshape(-1, 4), scores, np.array([row[1] for row in rows], np.int64), masks
    )


def iou(a, b):
    common = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def naive_ap(data, detections, threshold, iou=iou, shapes=None):
    """``shapes``: what overlaps, of the boxes and of the detections of every picture."""
    wanted_shapes, found_shapes = shapes or (
        [p.boxes.tolist() for p in data.pictures],
        [one.boxes.tolist() for one in detections],
    )
    of_classes = []
    for label in range(len(CLASSES)):
        free = [
            {k: shape for k, shape in enumerate(wanted_shapes[n]) if p.labels[k] == label}
            for n, p in enumerate(data.pictures)
        ]
        wanted, hits, curve = sum(map(len, free)), 0, []
        if not wanted:
            continue
        rows = [
            (one.scores[k], n, k)
            for n, one in enumerate(detections)
            for k in range(len(one.scores))
            if one.labels[k] == label
        ]
        for rank, (_, n, k) in enumerate(sorted(rows, reverse=True), 1):
            shape = found_shapes[n][k]
            best, nearest = max(
                ((iou(shape, other), m) for m, other in free[n].items()), default=(0, None)
            )
            if best >= threshold:
                del free[n][nearest]
                hits += 1
            curve.append((hits / wanted, hits / rank))
        at = [
            max((precision for recall, precision in curve if recall >= point), default=0)
            for point in np.linspace(0, 1, 101)
        ]
        of_classes.append(sum(at) / len(at))
    return 100 * sum(of_classes) / len(of_classes)


def draw(seed):
    """Crowded pictures, one without boxes, none with a dog, and detections.

    These are near the boxes, some twice, and anywhere.
    """
    rng = np.random.default_rng(seed)

    def box():
        left, top, width, height = rng.uniform((0, 0, 10, 10), (60, 60, 40, 40))
        return np.array([left, top, left + width, top + height])

    pictures, detections = (
        [[(box(), int(rng.integers(3))) for _ in range(n)] for n in (6, 0, 12, 3, 9)],
        [],
    )
    for rows in pictures:
        near = [
            (b + rng.normal(0, 2, 4), y if rng.random() < 0.9 else 3 - y, rng.random())
            for b, y in rows + rows[::2]
            if rng.random() < 0.8
        ]
        detections.append(
            found(*near, *((box(), int(rng.integers(4)), rng.random() / 2) for _ in range(4)))
        )
    return truth(*pictures), detections


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


def mask_iou(a, b):
    return (a & b).sum() / (a | b).sum()


def run_lengths(mask):
    """Uncompressed RLE: columns first, zeros first."""
    counts, last = [0], False
    for value in mask.ravel(order="F").tolist():
        if value != last:
            counts.append(0)
            last = value
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def rle(mask):
    return encode(np.asfortranarray(mask, np.uint8))


def rectangle(left, top, right, bottom):
    """A polygon of whole pixels, and its mask."""
    mask = np.zeros((100, 100), np.bool_)
    mask[top:bottom, left:right] = True
    return [left, top, right, top, right, bottom, left, bottom], mask


def draw_masks(seed):
    """Blobs in their boxes, in all of COCO's ways of writing, and detections.

    These are blobs moved, eaten away, doubled, mistaken and left out.
    """
    rng = np.random.default_rng(seed)
    rows, written, shapes, detections, found_shapes = [], [], [], [], []
    for count in (5, 0, 9, 3):
        rows.append([])
        written.append([])
        shapes.append([])
        for k in range(count):
            left, top, width, height = rng.integers((0, 0, 12, 12), (60, 60, 40, 40)).tolist()
            one, other = (
                rectangle(left, top, left + width, top + height // 2),
                rectangle(left + width // 2, top, left + width, top + height),
            )
            mask = one[1] | other[1]
            written[-1].append(
                (
                    [one[0], other[0]],
                    run_lengths(mask),
                    rle(mask) | {"counts": rle(mask)["counts"].decode()},
                )[k % 3]
            )
            shapes[-1].append(mask)
            rows[-1].append(((left, top, left + width, top + height), int(rng.integers(3))))
        near, found_shapes = [], [*found_shapes, []]
        for k in rng.permutation([*range(count), *range(0, count, 2)]):
            if rng.random() < 0.85:
                moved = np.roll(shapes[-1][k], rng.integers(-3, 4, 2), (0, 1)) & (
                    rng.random((100, 100)) < rng.uniform(0.8, 1)
                )
                found_shapes[-1].append(moved)
                near.append(
                    (BIG, rows[-1][k][1] if rng.random() < 0.9 else 3, rng.random())
                )  # the box does not matter
        detections.append(found(*near, masks=[rle(mask) for mask in found_shapes[-1]]))
    return truth(*rows, masks=written), detections, (shapes, found_shapes)


@pytest.mark.parametrize("seed", range(5))
def test_masks_agree_with_a_plain_loop_over_pixels(seed, capsys):
    data, detections, shapes = draw_masks(seed)
    got = average_precision(data, detections, masks=True)
    assert capsys.readouterr() == ("", "")
    naive = [
        naive_ap(data, detections, threshold, mask_iou, shapes)
        for threshold in np.linspace(0.5, 0.95, 10)
    ]
    assert got == pytest.approx((sum(naive) / 10, naive[0], naive[5]), abs=1e-6)
    assert 5 < got.ap < got.ap50 <= 100
    assert average_precision(data, detections) != got


def test_a_crowds_mask_is_a_region_that_is_ignored():
    polygon, object_mask = rectangle(10, 10, 30, 40)
    region = np.zeros((100, 100), np.bool_)
    region[50:90, 50:60] = region[50:60, 50:90] = True  # an L: half of its box is no crowd
    data = truth([(A, 0), ((50, 50, 90, 90), 0, True)], masks=[[[polygon], run_lengths(region)]])
    right, inside, beside = (
        rle(mask)
        for mask in (object_mask, rectangle(52, 52, 58, 80)[1], rectangle(70, 70, 88, 88)[1])
    )
    detections = [found((BIG, 0, 0.9), (BIG, 0, 0.8), (BIG, 0, 0.5), masks=[inside, inside, right])]
    assert average_precision(data, detections, masks=True) == PERFECT
    detections = [found((BIG, 0, 0.9), (BIG, 0, 0.5), masks=[beside, right])]
    assert average_precision(data, detections, masks=True) == HALF


def test_masks_without_detections_and_detections_without_boxes():
    polygon, mask = rectangle(*A)
    data = truth([(A, 0)], [], masks=[[[polygon]], []])
    assert average_precision(data, [found(), found()], masks=True) == (0, 0, 0)
    assert (
        average_precision(
            data, [found((B, 0, 0.5), masks=[rle(mask)]), found(masks=[])], masks=True
        )
        == PERFECT
    )
    assert (
        average_precision(
            data,
            [found((B, 0, 0.5), masks=[rle(mask)]), found((A, 0, 0.9), masks=[rle(mask)])],
            masks=True,
        )
        == HALF
    )
    for masks in (None, [], [rle(mask)] * 2):
        with pytest.raises(ValueError):
            average_precision(data, [found((A, 0, 0.5), masks=masks), found()], masks=True)


def test_a_mask_that_is_missing_or_of_another_size_is_refused():
    polygon, mask = rectangle(*A)
    detections = [found((A, 0, 0.5), masks=[rle(mask)])]
    for ignored in (False, True):  # a crowd without a region could not be ignored
        with pytest.raises(
            CareError, match=r"a box of 0\.jpg has no mask, and the AP of masks needs all"
        ):
            average_precision(
                truth([(A, 0), (B, 1, ignored)], masks=[[[polygon], []]]), detections, masks=True
            )
    data, small = truth([(A, 0)], masks=[[[polygon]]]), np.ones((100, 50), np.bool_)
    for wrong in (
        (data, [found((A, 0, 0.5), masks=[rle(small)])]),
        (truth([(A, 0)], masks=[[run_lengths(small)]]), detections),
    ):
        with pytest.raises(
            CareError, match=r"a mask of 0\.jpg has 50 × 100 pixels, the image \(100, 100\)"
        ):
            average_precision(*wrong, masks=True)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # in pycocotools
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_cocos_own_files_give_what_pycocotools_gives(unpacked, kind):
    """The reference reads the JSON itself, with its category numbers, crowds and areas."""
    path = (
        unpacked("coco-mini-permissive.tar")
        / "coco-mini-permissive"
        / "annotations"
        / "instances_val2017.json"
    )
    data, content, rng = boxes.load(path), json.loads(path.read_text()), np.random.default_rng(0)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(path)
        results, found_by = [], {image["id"]: [] for image in content["images"]}
        names = {one["id"]: data.classes.index(one["name"]) for one in content["categories"]}
        for one in content["annotations"]:
            if rng.random() < 0.8:
                mask = np.roll(reference.annToMask(one), rng.integers(-4, 5, 2), (0, 1))
                x, y, w, h = (
                    (np.float32(one["bbox"]) + rng.normal(0, 3, 4).clip(-1, 1))
                    .astype(np.float32)
                    .tolist()
                )
                row = {
                    "image_id": one["image_id"],
                    "category_id": one["category_id"],
                    "score": float(np.float32(rng.random())),
                }
                results.append(
                    row
                    | ({"bbox": [x, y, w, h]} if kind == "bbox" else {"segmentation": rle(mask)})
                )
                found_by[one["image_id"]].append(
                    ((x, y, x + w, y + h), names[one["category_id"]], row["score"], rle(mask))
                )
        judge = COCOeval(reference, reference.loadRes([dict(row) for row in results]), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    detections = [
        found(*(row[:3] for row in rows), masks=[row[3] for row in rows])
        for rows in found_by.values()
    ]
    got = average_precision(data, detections, masks=kind == "segm")
    assert got == pytest.approx(
        100 * judge.stats[:3], abs=0.05 if kind == "bbox" else 1e-9
    )  # boxes are kept in float32
    assert 20 < got.ap < got.ap50 < 95


# on resampled pictures


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


def test_without_detections_every_draw_is_zero():
    judged = judge_coco(truth([(A, 0)], [(B, 1)]), [found()] * 2)
    assert judged.resampled() == [0.0] * DETECTION_DRAWS
