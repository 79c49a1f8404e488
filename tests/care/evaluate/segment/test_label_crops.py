"""Crops of images with labels, beside Pillow alone."""

import numpy as np
import pytest
import torch
from PIL import Image
from care.evaluate.label_crops import (
    LabelCrops,
    ShownCrop,
    WholeImages,
    draw_crop,
    training_crops,
)
from shards.pixel_report import PixelReport
from shards.segmentation import SegmentationSet


class Chequers:
    """Images of 40 × 30 px, in which a pixel's colour says its class."""

    pixels = PixelReport({})

    def image(self, number):
        return Image.fromarray(np.stack([self.labels(number) * 60] * 3, 2))

    def labels(self, number):
        rows, columns = np.indices((30, 40)) // (5 + number)
        return ((rows + columns) % 3).astype(np.uint8)


def make_set(count=6):
    keys = tuple(f"{number}" for number in range(count))
    return SegmentationSet("here", ("a", "b", "c"), keys, Chequers(), {}, "digest")


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("scale", "side"), [(1, None), (2, None), (0.5, None), (1.5, 20)])
def test_a_crop_is_what_pillow_makes(scale, side, mirrored) -> None:
    shown = ShownCrop(1, scale, 0.7, 0.2, mirrored)
    pixels, labels = LabelCrops(make_set(), 24, side)[shown]
    short = (side or 30) * scale
    size = (round(short * 40 / 30), round(short))
    image = np.asarray(Chequers().image(1).resize(size, Image.Resampling.BILINEAR))
    truth = np.asarray(Image.fromarray(Chequers().labels(1)).resize(size, 0))
    left, top = (
        min(int(u * (max(n - 24, 0) + 1)), max(n - 24, 0))
        for u, n in zip((0.7, 0.2), size, strict=True)
    )
    wanted = np.full((24, 24, 3), (124, 116, 104), np.uint8)
    classes = np.full((24, 24), 255, np.uint8)
    height, width = min(24, size[1] - top), min(24, size[0] - left)
    wanted[:height, :width] = image[top : top + 24, left : left + 24]
    classes[:height, :width] = truth[top : top + 24, left : left + 24]
    if mirrored:
        wanted, classes = wanted[:, ::-1], classes[:, ::-1]
    assert (pixels.numpy() == wanted.transpose(2, 0, 1)).all()
    assert (labels.numpy() == classes).all()


def test_draws_are_a_function_of_seed_epoch_and_image_and_reach_everywhere() -> None:
    assert draw_crop(1, 2, 3) == draw_crop(1, 2, 3)
    draws = [draw_crop(0, epoch, number) for epoch in range(20) for number in range(20)]
    scales = np.array([draw.scale for draw in draws])
    assert 0.5 <= scales.min() < 0.55 < 1.9 < scales.max() <= 2
    assert abs(np.mean([draw.mirrored for draw in draws]) - 0.5) < 0.1
    places = np.array([(draw.left, draw.top) for draw in draws])
    assert places.min() < 0.05
    assert places.max() > 0.95
    assert len({*draws}) == len(draws)


def test_a_stream_that_starts_later_goes_on_as_one_from_the_beginning() -> None:
    def stream(start):
        return [
            *training_crops(
                LabelCrops(make_set(), 16, None),
                batch_size=2,
                steps=range(start, 5),
                seed=3,
                workers=0,
                device=torch.device("cpu"),
            )
        ]

    whole, later = stream(0), stream(3)
    assert len(whole) == 5
    for batch, same in zip(whole[3:], later, strict=True):
        assert torch.equal(batch.images, same.images)
        assert torch.equal(batch.labels, same.labels)
    assert whole[0].images.shape == (2, 3, 16, 16)
    assert whole[0].labels.dtype == torch.uint8
    assert 0 <= float(whole[0].images.min()) <= float(whole[0].images.max()) <= 1


def test_whole_images_are_resized_and_their_labels_are_not() -> None:
    pixels, labels = WholeImages(make_set(), 15)[2]
    assert pixels.shape == (3, 15, 20)
    assert (labels == Chequers().labels(2)).all()
    pixels, _ = WholeImages(make_set(), None)[2]
    assert (pixels.numpy() == np.asarray(Chequers().image(2)).transpose(2, 0, 1)).all()
