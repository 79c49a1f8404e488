"""Pictures, boxes and masks as a detector sees them."""

import itertools
from collections import Counter
import numpy as np
import pytest
import torch
from detecting import (
    COLOURS,
    box_set,
    paint,
)
from PIL import Image, ImageDraw
from pycocotools.mask import encode
from care.evaluate.pictures import Examples, ResizedPicture, draw_picture, rasterise
from shards.boxes import Picture


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((40, 40), (64, 64)),
        ((80, 50), (102, 64)),
        ((50, 80), (64, 102)),
        ((128, 96), (85, 64)),
        ((31, 31), (64, 64)),
        ((200, 50), (107, 27)),  # as long as 64 · 1333 / 800 at most
        ((30, 90), (36, 107)),
        ((800, 3), (107, 1)),
        ((64, 64), (64, 64)),
    ],
)
def test_a_picture_is_resized_to_its_short_side_unless_it_is_too_long(
    make_image, tmp_path, size, wanted
):
    path = tmp_path / "image.png"
    make_image(0, size).save(path)
    corners = np.array(
        [[0, 0, *size], [size[0] / 4, size[1] / 2, size[0] / 2, size[1]]], np.float32
    )
    none = np.zeros(2, np.bool_)
    picture = Picture(path, size, corners, np.array([0, 2]), none, none, [[], []])
    pixels, target = Examples(box_set(picture), 64)[ResizedPicture(0, 64)]
    assert tuple(pixels.shape) == (3, wanted[1], wanted[0])
    naive = np.asarray(
        Image.open(path).convert("RGB").resize(wanted, Image.Resampling.BILINEAR)
    ).transpose(2, 0, 1)
    assert torch.equal(pixels, torch.from_numpy(naive / np.float32(255)))
    x, y = wanted[0] / size[0], wanted[1] / size[1]
    for got, (left, top, right, bottom) in zip(
        target["boxes"].tolist(), corners.tolist(), strict=True
    ):
        assert got == pytest.approx([left * x, top * y, right * x, bottom * y], rel=1e-5)
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].tolist() == [1, 3]
    assert "masks" not in target


def test_the_pixels_in_a_box_and_in_its_mask_are_its_objects_in_both_orientations(tmp_path):
    objects = ((1, 10, 20, 30, 60), (2, 50, 0, 90, 10), (0, 80, 40, 100, 80))
    examples = Examples(box_set(paint(tmp_path / "image.png", (100, 80), *objects)), 800, mask=True)
    for mirrored in (False, True):
        pixels, target = examples[ResizedPicture(0, 160, mirrored)]
        assert tuple(pixels.shape) == (3, 160, 200)
        assert target["labels"].tolist() == [2, 3, 1]
        assert (target["masks"].dtype, target["masks"].shape) == (torch.uint8, (3, 160, 200))
        for box, label, mask in zip(
            target["boxes"].tolist(), target["labels"].tolist(), target["masks"], strict=True
        ):
            left, top, right, bottom = (round(value) for value in box)
            assert box == [left, top, right, bottom]
            colour = torch.tensor(COLOURS[label - 1])[:, None, None] / 255
            inside = pixels[
                :, top + 1 : bottom - 1, left + 1 : right - 1
            ]  # Pillow blends across a border
            torch.testing.assert_close(inside, colour.expand_as(inside))
            count = int(((pixels - colour).abs().amax(0) < 0.3).sum())
            assert count == pytest.approx(
                (right - left) * (bottom - top), abs=2 * (right - left + bottom - top)
            )
            drawn_box = torch.zeros_like(mask)
            drawn_box[top:bottom, left:right] = 1
            assert torch.equal(mask, drawn_box)
    (plain, one), (mirrored, two) = (
        examples[ResizedPicture(0, 160)],
        examples[ResizedPicture(0, 160, True)],
    )
    assert torch.equal(plain.flip(2), mirrored)
    assert torch.equal(one["masks"].flip(2), two["masks"])
    assert torch.equal(two["boxes"][:, [0, 2]], 200 - one["boxes"][:, [2, 0]])
    assert torch.equal(two["boxes"][:, [1, 3]], one["boxes"][:, [1, 3]])


def test_masks_of_any_shape_are_drawn_where_the_object_is_after_resizing():
    """Against Pillow's polygons and, for RLEs, its resizing."""
    triangle, square = [12.0, 8, 88, 20, 40, 70], [60.0, 60, 78, 60, 78, 78, 60, 78]
    factors = np.array([1.5, 0.75])
    found = rasterise([triangle, [*square, 3.0]], factors, (60, 150))  # half a corner too many
    image = Image.new("L", (150, 60))
    for polygon in (triangle, square):
        corners = np.reshape(polygon, (-1, 2)) * factors - 0.5
        ImageDraw.Draw(image).polygon([tuple(corner) for corner in corners.tolist()], fill=1)
    assert (found != np.asarray(image)).mean() < 0.02
    assert found.sum() == pytest.approx(np.asarray(image).sum(), rel=0.1)
    ring = np.zeros((80, 100), np.uint8)
    ring[10:70, 20:90], ring[30:50, 40:60] = 1, 0
    packed = encode(np.asfortranarray(ring))
    counts = [len(list(run)) for _, run in itertools.groupby(ring.ravel(order="F"))]
    wanted = np.asarray(Image.fromarray(ring).resize((150, 60), Image.Resampling.NEAREST))
    for mask in (
        packed,
        packed | {"counts": packed["counts"].decode()},
        {"size": [80, 100], "counts": counts},
    ):
        assert np.array_equal(rasterise(mask, factors, (60, 150)), wanted)


def test_difficult_objects_are_learned_from_and_crowds_are_not(tmp_path):
    objects = ((1, 10, 20, 30, 60), (2, 50, 0, 90, 10), (0, 80, 40, 100, 80))
    one = paint(tmp_path / "1.png", (100, 80), *objects, crowd=(1,), difficult=(0,))
    examples = Examples(
        box_set(one, paint(tmp_path / "2.png", (100, 80), *objects, crowd=(0, 1, 2))),
        800,
        mask=True,
    )
    for mirrored in (False, True):
        assert examples[ResizedPicture(0, 80, mirrored)][1]["labels"].tolist() == [2, 1]
        target = examples[ResizedPicture(1, 80, mirrored)][1]
        assert (tuple(target["boxes"].shape), tuple(target["masks"].shape)) == (
            (0, 4),
            (0, 80, 100),
        )
        assert [target[name].dtype for name in ("boxes", "labels", "masks")] == [
            torch.float32,
            torch.int64,
            torch.uint8,
        ]
    assert examples[ResizedPicture(0, 80)][1]["boxes"].tolist() == [
        [10, 20, 30, 60],
        [80, 40, 100, 80],
    ]


def test_how_a_picture_is_shown_is_a_pure_function_of_seed_epoch_and_number():
    sides = [48, 64, 80]
    views = {
        (seed, epoch, n): draw_picture(seed, epoch, n, sides)
        for seed in (0, 1)
        for epoch in range(10)
        for n in range(20)
    }
    torch.rand(3)
    np.random.rand(3)
    assert all(
        draw_picture(*at, sides) == view and view.number == at[2]
        for at, view in reversed(views.items())
    )
    counts = Counter((view.side, view.mirrored) for view in views.values())
    assert counts.keys() == {(side, mirrored) for side in sides for mirrored in (False, True)}
    assert all(45 <= count <= 90 for count in counts.values())
    assert (
        len(
            {
                tuple(views[seed, epoch, n][1:] for n in range(20))
                for seed in (0, 1)
                for epoch in range(10)
            }
        )
        == 20
    )
