"""The objects of annotated images in crops, by masks, boxes and VOC's palette images."""

import json
import numpy as np
import pytest
from PIL import Image
from care.evaluate.images import centre_crop
from care.evaluate.objects import Framing, objects_of
from shards import boxes
from shards.image_size import sides

WIDTH, HEIGHT = 60, 40
WHOLE = Framing(None)


def coco(folder, annotations):
    """A COCO JSON of one image."""
    Image.new("RGB", (WIDTH, HEIGHT), "gray").save(folder / "a.png")
    listed = [
        {"id": n + 1, "image_id": 1, "category_id": 1, "iscrowd": 0} | annotation
        for n, annotation in enumerate(annotations)
    ]
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": listed,
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "list.json").write_text(json.dumps(document))
    return boxes.load(folder / "list.json")


def rle(mask):
    """COCO's run lengths, column by column, beginning with those outside."""
    flat = [False, *mask.T.ravel().tolist()]
    changes = [n for n in range(1, len(flat)) if flat[n] != flat[n - 1]]
    ends = [*(n - 1 for n in changes), len(flat) - 1]
    starts = [0, *ends[:-1]]
    return {
        "size": [*mask.shape],
        "counts": [end - start for start, end in zip(starts, ends, strict=True)],
    }


def test_masks_count_where_there_are_some_else_boxes_and_crowds_never(tmp_path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:15, 10:30] = np.random.default_rng(0).random((10, 20)) < 0.7
    crowd = np.zeros_like(mask)
    crowd[30:, :] = True
    data = coco(
        tmp_path,
        [
            {"bbox": [10, 5, 20, 10], "segmentation": rle(mask)},
            {"bbox": [40, 20, 8, 6]},
            {"bbox": [0, 30, 60, 10], "segmentation": rle(crowd), "iscrowd": 1},
        ],
    )
    shown = objects_of(data, 0, WHOLE)
    want = mask.copy()
    want[20:26, 40:48] = True
    np.testing.assert_array_equal(shown.inside.numpy() > 0.5, want)
    assert shown.boxes.tolist() == [[10, 5, 30, 15], [40, 20, 48, 26]]
    assert shown.has_masks


def test_of_boxes_alone_it_says_so(tmp_path) -> None:
    shown = objects_of(coco(tmp_path, [{"bbox": [2, 3, 10, 10]}]), 0, WHOLE)
    assert not shown.has_masks
    assert int(shown.inside.sum()) == 100


@pytest.mark.parametrize("size", [16, 33, "64x24"])
@pytest.mark.parametrize("box", [(10, 5, 50, 30), (0, 0, 60, 40), (25, 12, 35, 22)])
def test_boxes_are_cropped_as_what_is_inside_of_them(tmp_path, size, box) -> None:
    left, top, right, bottom = box
    bbox = [left, top, right - left, bottom - top]
    shown = objects_of(coco(tmp_path, [{"bbox": bbox}]), 0, Framing(size))
    assert shown.inside.shape == sides(size)
    gray = np.zeros((HEIGHT, WIDTH), np.uint8)
    gray[top:bottom, left:right] = 255
    crop = np.asarray(centre_crop(Image.fromarray(gray), size))
    np.testing.assert_allclose(shown.inside.numpy(), crop / 255, atol=1e-6)
    rows, columns = np.nonzero(crop > 127)
    edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(shown.boxes[0].numpy(), edges, atol=1)


def test_what_lies_outside_of_a_crop_is_no_object_of_it(tmp_path) -> None:
    shown = objects_of(coco(tmp_path, [{"bbox": [0, 0, 4, 40]}]), 0, Framing(32))
    assert len(shown.boxes) == 0
    assert shown.inside.max() == 0


def devkit(folder, *, mask_folder=None):
    """VOC's devkit with one image and one object."""
    root = folder / "VOC2012"
    for name in ("Annotations", "JPEGImages", "ImageSets/Segmentation", mask_folder or "x"):
        (root / name).mkdir(parents=True)
    Image.new("RGB", (WIDTH, HEIGHT), "gray").save(root / "JPEGImages/2007_1.jpg")
    sides = "<xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>15</ymax>"
    (root / "Annotations/2007_1.xml").write_text(
        "<annotation><filename>2007_1.jpg</filename>"
        f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        f"<object><name>cat</name><difficult>1</difficult><bndbox>{sides}</bndbox></object>"
        "</annotation>"
    )
    (root / "ImageSets/Segmentation/val.txt").write_text("2007_1\n")
    if mask_folder:
        values = np.zeros((HEIGHT, WIDTH), np.uint8)
        values[5:15, 10:30] = 255
        values[7:13, 12:28] = 1
        palette = Image.fromarray(values, "P")
        palette.putpalette([0, 0, 0, 128, 0, 0] + [224, 224, 192] * 254)
        palette.save(root / mask_folder / "2007_1.png")
    return boxes.load(root / "ImageSets/Segmentation/val.txt")


@pytest.mark.parametrize("mask_folder", ["SegmentationObject", "SegmentationClass"])
def test_of_vocs_devkit_the_palette_images_are_the_masks(tmp_path, mask_folder) -> None:
    shown = objects_of(devkit(tmp_path, mask_folder=mask_folder), 0, WHOLE)
    want = np.zeros((HEIGHT, WIDTH), bool)
    want[7:13, 12:28] = True  # without the border of 255
    np.testing.assert_array_equal(shown.inside.numpy() > 0.5, want)
    assert shown.has_masks
    assert shown.boxes.tolist() == [[10, 5, 30, 15]]


def test_without_palette_images_vocs_boxes_are_the_objects_difficult_ones_too(tmp_path) -> None:
    shown = objects_of(devkit(tmp_path), 0, WHOLE)
    assert not shown.has_masks
    assert int(shown.inside.sum()) == 200
