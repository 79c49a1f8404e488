"""Crops as evaluations show them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
import shards
from care.evaluate.images import centre_crop, centre_crops, random_crops
from care.train.photometrics import crop
from care.train.views import View
from shards.image_size import image_size

SIZE = 32
NORMALIZE = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def paper_transform(size):
    """torchvision's own, on images: resize the short side, central crop."""
    return transforms.Compose(
        [transforms.Resize(round(size * 256 / 224)), transforms.CenterCrop(size)]
    )


@pytest.mark.parametrize(
    "size", [(500, 375), (375, 500), (256, 256), (500, 332), (224, 400), (40, 40), (3, 90)]
)
def test_a_centre_crop_is_torchvisions(size):
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    )
    for length in (224, 33):
        ours = centre_crop(image, length)
        assert ours.size == (length, length)
        assert np.array_equal(np.asarray(ours), np.asarray(paper_transform(length)(image)))


def test_a_centre_crop_is_torchvisions_where_the_long_side_is_no_whole_number(make_image):
    for width in range(300, 330):
        image = make_image(width, (width, 211))
        assert np.array_equal(
            np.asarray(centre_crop(image, 96)), np.asarray(paper_transform(96)(image))
        )


@pytest.mark.parametrize("size", [(40, 90), (90, 40), (64, 64)])
@pytest.mark.parametrize("image_sides", [(200, 300), (300, 200), (100, 1000), (300, 133)])
def test_a_crop_that_is_not_square_keeps_the_shape_of_what_it_shows(size, image_sides):
    height, width = image_sides
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    # a float image whose values are places: bilinear filters keep ramps, away from the borders
    places = [
        np.asarray(centre_crop(Image.fromarray(ramp), image_size(size))) for ramp in (rows, columns)
    ]
    assert {place.shape for place in places} == {size}
    slopes = [np.diff(place, axis=axis)[3:-3, 3:-3].mean() for axis, place in enumerate(places)]
    # pixels of the image in one of the crop: the crop with its margin just fits into the image
    step = min((height - 0.5) / (size[0] * 256 / 224), (width - 0.5) / (size[1] * 256 / 224))
    assert slopes == pytest.approx([step, step], rel=0.03)
    for place, side in zip(places, image_sides, strict=True):
        assert place[3:-3, 3:-3].mean() == pytest.approx((side - 1) / 2, abs=step)


def test_views_that_are_not_square_come_in_their_shape(data):
    (pixels,) = centre_crops(data, [[3, 5]], size="16x48")
    assert pixels.shape == (2, 3, 16, 48)
    crops = next(
        random_crops(
            data, np.arange(6), size="16x48", min_scale=0.3, batch_size=4, steps=range(1), seed=0
        )
    )
    assert crops.images.shape == (4, 3, 16, 48)


def test_all_images_come_in_order_and_normalised(data):
    transform = transforms.Compose([paper_transform(SIZE), transforms.ToTensor(), NORMALIZE])
    want = torch.stack([transform(data.image(i)) for i in range(24)])
    batches = [[*range(7)], [9, 8], [*range(10, 24)], [7]]
    for workers in (0, 1):
        got = list(centre_crops(data, batches, size=SIZE, workers=workers))
        assert [len(batch) for batch in got] == [7, 2, 14, 1]
        torch.testing.assert_close(
            torch.cat(got), want[[row for batch in batches for row in batch]], rtol=0, atol=1e-6
        )


@pytest.mark.parametrize(("workers", "start"), [(0, 0), (1, 0), (0, 3)])
def test_crops_are_those_of_the_views_of_each_epochs_order(data, workers, start):
    rows = np.array([20, 3, 11, 7, 15, 4])
    view = View(scale=(0.3, 1), jitter_p=0, blur_p=0, gray_p=0)
    settings = {"size": SIZE, "min_scale": 0.3, "batch_size": 4, "seed": 3, "workers": workers}
    # an epoch is a step
    got = list(random_crops(data, rows, steps=range(start, 5), **settings))
    assert len(got) == 5 - start
    for epoch, (pixels, labels, of) in enumerate(got, start):
        assert (
            of.tolist() == rows[shards.step_ids(6, batch_size=4, step=epoch, seed=3).ids].tolist()
        )
        assert labels.tolist() == [int(data[row].label) for row in of]
        naive = [
            crop(np.array(data.image(int(row))), view.draw(3, epoch, int(row), 0), SIZE).copy()
            for row in of
        ]
        torch.testing.assert_close(
            pixels, torch.stack([NORMALIZE(torch.from_numpy(one).float() / 255) for one in naive])
        )
    assert (
        len({tuple(sorted(of.tolist())) for _, _, of in got}) > 1
    )  # others are left out each epoch
