"""Pictures with boxes or masks, detections of them, and COCO's metric as a plain loop."""

from pathlib import Path
import numpy as np
import pytest
from pycocotools.mask import encode
from care.evaluate.average_precision import Detections
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
