"""The compiled metric gives pycocotools' figures, and the matches behind them."""

import sys
import numpy as np
import pytest
from coco_cases import A, B, draw, draw_masks, found, truth
from care.errors import CareError
from care.evaluate.coco_metric import judge_coco
from care.evaluate.faster_coco import check_installed

FASTER = "faster-coco-eval"


def compare(data, detections, **more):
    pytest.importorskip("faster_coco_eval", reason="care-ssl[coco] is not installed")
    slow = judge_coco(data, detections, **more)
    fast = judge_coco(data, detections, backend=FASTER, **more)
    assert fast.precision == pytest.approx(slow.precision, abs=1e-9)
    assert fast.by_size == slow.by_size
    assert [*fast.labels] == [*slow.labels]
    for ours, theirs in zip(fast.classes, slow.classes, strict=True):
        for array, want in zip(ours, theirs, strict=True):
            assert np.array_equal(array, want)
    return slow


@pytest.mark.parametrize("seed", range(3))
def test_boxes_and_masks_are_counted_alike(seed, capsys):
    slow = compare(*draw(seed))
    assert 5 < slow.precision.ap < 95
    compare(*draw_masks(seed)[:2], masks=True)
    assert capsys.readouterr() == ("", "")


def test_crowds_equal_scores_and_classes_without_objects_are_counted_alike():
    crowded = truth([(A, 0), (B, 0, True)], [], [(A, 0), (A, 1), (B, 3, True)])
    first = found((B, 0, 0.5), (A, 0, 0.5), (B, 0, 0.5))
    compare(crowded, [first, found((A, 0, 0.5)), found((A, 0, 0.5), (B, 2, 0.2), (B, 3, 0.9))])


def test_no_more_than_a_hundred_detections_of_a_class_in_an_image_count():
    rng = np.random.default_rng(0)
    many = [((0, 0, *rng.uniform(5, 100, 2)), 0, score) for score in rng.random(150)]
    compare(truth([((0, 0, 50, 50), 0)], [(A, 0)]), [found(*many), found((A, 0, 0.5))])


def test_nothing_found_is_nothing():
    compare(truth([(A, 0)]), [found()])


def test_without_the_package_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(CareError, match=r"pip install 'care-ssl\[coco\]'"):
        check_installed()
