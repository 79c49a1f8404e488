"""Detections as a results file that pycocotools reads beside the user's own list."""

import json
from contextlib import redirect_stdout
import numpy as np
import pytest
from coco_cases import CLASSES, draw, draw_masks
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from care.evaluate.coco_metric import average_precision
from care.evaluate.coco_results import DetectionResults
from shards import boxes

NUMBERS = (7, 3, 90, 12)  # of the categories, in no order


def write_list(folder, data):
    """A COCO document of these pictures, whose images have numbers of their own."""
    images, annotations = [], []
    for number, picture in enumerate(data.pictures):
        width, height = picture.size
        name = f"{number}.png"
        Image.new("RGB", picture.size).save(folder / name)
        images.append({"id": 1000 - number, "file_name": name, "width": width, "height": height})
        for box, label, crowd in zip(picture.boxes, picture.labels, picture.crowd, strict=True):
            x1, y1, x2, y2 = box.tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 1000 - number,
                    "category_id": NUMBERS[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(crowd),
                }
            )
    categories = [
        {"id": number, "name": name} for number, name in zip(NUMBERS, CLASSES, strict=True)
    ]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(document))


def test_pycocotools_reads_them_beside_the_list_and_finds_the_same(tmp_path):
    data, detections = draw(1)
    write_list(tmp_path, data)
    # the list has the classes in the order of their numbers
    loaded = boxes.load(tmp_path / "annotations.json", classes=CLASSES)
    results = DetectionResults(loaded, detections)
    (tmp_path / "detections.json").write_bytes(results.files()["detections.json"])
    with redirect_stdout(None):
        coco = COCO(str(tmp_path / "annotations.json"))
        evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "detections.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    want = average_precision(loaded, detections)
    assert [100 * value for value in evaluation.stats[:3]] == pytest.approx(want, abs=1e-6)
    assert 5 < want.ap < 95


def test_masks_are_in_them_as_text(tmp_path):
    data, detections = draw_masks(0)[:2]
    rows = json.loads(DetectionResults(data, detections).files()["detections.json"])
    masks = [mask for in_picture in detections for mask in in_picture.masks]
    assert len(rows) == len(masks) > 0
    for row, mask in zip(rows, masks, strict=True):
        assert row["segmentation"]["size"] == [*mask["size"]]
        assert row["segmentation"]["counts"].encode() == mask["counts"]


def test_a_class_that_the_list_does_not_have_is_named(tmp_path):
    data, detections = draw(0)
    write_list(tmp_path, data)
    loaded = boxes.load(tmp_path / "annotations.json", classes=("newt", *CLASSES[1:]))
    rows = DetectionResults(loaded, detections).rows()
    labels = np.concatenate([in_picture.labels for in_picture in detections])
    names = ("newt", *NUMBERS[1:])
    assert [row["category_id"] for row in rows] == [names[label] for label in labels]
