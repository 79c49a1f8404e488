"""COCO's average precision of masks, and of COCO's own files."""

import contextlib
import io
import json
import numpy as np
import pytest
from coco_cases import (
    BIG,
    HALF,
    PERFECT,
    A,
    B,
    draw_masks,
    found,
    mask_iou,
    naive_ap,
    rectangle,
    rle,
    run_lengths,
    truth,
)
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from care.errors import CareError
from care.evaluate.coco_metric import average_precision
from shards import boxes


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
