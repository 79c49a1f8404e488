"""RandAugment and the photometric change: what is drawn, and what it does to pixels."""

import itertools
from collections import Counter
import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from care.train import View
from care.train.operation_pixels import FILL, OPERATIONS, apply_operations
from care.train.operations import AMOUNTS, Operation
from care.train.photometrics import apply_photometrics

PLAIN = View(jitter_p=0, blur_p=0, gray_p=0, flip_p=0, solarize_p=0)
FACTORS = (0.1, 0.7, 1.0, 1.9)


def drawn(augment, count=4000):
    view = PLAIN._replace(augment=augment)
    return np.stack([view.draw(0, 0, sample, 0).operations for sample in range(count)])


def photograph_like(size=(40, 30), seed=3):
    """Smooth colours, some of them clipped, so that operations have something to do."""
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def pixels(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def levels(x):
    return x[0].permute(1, 2, 0).numpy() * 255


def changed(image, *operations):
    numbers = torch.tensor([[(int(kind), amount) for kind, amount in operations]])
    return levels(apply_operations(pixels(image), numbers.float()))


def moved(image, matrix):
    fill = {"resample": Image.Resampling.BILINEAR, "fillcolor": FILL}
    return image.transform(image.size, Image.Transform.AFFINE, matrix, **fill)


def solarize_add(image, added):
    table = [min(255, level + added) if level < 128 else level for level in range(256)]
    return image.point(table * 3)


# what Pillow makes of an image, which is what the released codes call
PILLOW = {
    Operation.AUTO_CONTRAST: (lambda image, _: ImageOps.autocontrast(image), (0,)),
    Operation.EQUALIZE: (lambda image, _: ImageOps.equalize(image), (0,)),
    Operation.INVERT: (lambda image, _: ImageOps.invert(image), (0,)),
    Operation.POSTERIZE: (ImageOps.posterize, (1, 3, 4, 8)),
    Operation.SOLARIZE: (ImageOps.solarize, (0, 100, 243, 256)),
    Operation.SOLARIZE_ADD: (solarize_add, (0, 104, 110)),
    Operation.SATURATION: (lambda image, f: ImageEnhance.Color(image).enhance(f), FACTORS),
    Operation.CONTRAST: (lambda image, f: ImageEnhance.Contrast(image).enhance(f), FACTORS),
    Operation.BRIGHTNESS: (lambda image, f: ImageEnhance.Brightness(image).enhance(f), FACTORS),
    Operation.SHARPNESS: (lambda image, f: ImageEnhance.Sharpness(image).enhance(f), FACTORS),
    Operation.ROTATE: (
        lambda image, degrees: image.rotate(
            degrees, resample=Image.Resampling.BILINEAR, fillcolor=FILL
        ),
        (30, -28.5, 7),
    ),
    Operation.SHEAR_X: (lambda image, f: moved(image, (1, f, 0, 0, 1, 0)), (0.3, -0.29)),
    Operation.SHEAR_Y: (lambda image, f: moved(image, (1, 0, 0, f, 1, 0)), (0.3, -0.29)),
    Operation.TRANSLATE_X: (
        lambda image, f: moved(image, (1, 0, f * image.width, 0, 1, 0)),
        (0.45, -0.41),
    ),
    Operation.TRANSLATE_Y: (
        lambda image, f: moved(image, (1, 0, 0, 0, 1, f * image.height)),
        (0.45, -0.41),
    ),
}
# a level of rounding, multiplied by what follows it
TOLERANCE = {Operation.SHARPNESS: 2, Operation.SATURATION: 2, Operation.CONTRAST: 2}
PAIRS = [(kind, amount) for kind, (_, amounts) in PILLOW.items() for amount in amounts]


def test_every_operation_has_pixels_and_a_reference():
    kinds = {*Operation} - {Operation.NONE}
    assert OPERATIONS.keys() == PILLOW.keys() == kinds
    without_amount = kinds - AMOUNTS.keys()
    assert without_amount == {Operation.AUTO_CONTRAST, Operation.EQUALIZE, Operation.INVERT}


@pytest.mark.parametrize(("kind", "amount"), PAIRS)
def test_an_operation_does_what_pillow_does(kind, amount):
    image = photograph_like()
    reference, _ = PILLOW[kind]
    want = np.asarray(reference(image, amount)).astype(float)
    difference = np.abs(changed(image, (kind, amount)) - want)
    assert difference.max() <= TOLERANCE.get(kind, 1) + 1e-3


@pytest.mark.parametrize("kind", [Operation.AUTO_CONTRAST, Operation.EQUALIZE])
def test_an_image_of_one_colour_stays_what_it_is(kind):
    image = Image.new("RGB", (9, 7), (10, 200, 77))
    np.testing.assert_allclose(changed(image, (kind, 0)), np.asarray(image), atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (9, 2)])
@pytest.mark.parametrize("kind", OPERATIONS)
def test_tiny_images_are_changed_without_an_error(kind, size):
    amount = PILLOW[kind][1][0]
    got = changed(photograph_like(size), (kind, amount))
    assert got.min() >= 0
    assert got.max() <= 255


def test_operations_follow_each_other():
    image = photograph_like()
    got = changed(image, (Operation.INVERT, 0), (Operation.NONE, 5), (Operation.TRANSLATE_X, 0.45))
    want = np.asarray(moved(ImageOps.invert(image), (1, 0, 18, 0, 1, 0)))
    assert np.abs(got - want).max() <= 1 + 1e-3


def test_an_images_bits_do_not_depend_on_the_others():
    view = View(augment="rand-augment", blur=(0.1, 0.5))
    generator = torch.Generator().manual_seed(0)
    crops = torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8, generator=generator)
    parameters = [view.draw(0, 0, sample, 0) for sample in range(12)]
    colours = torch.from_numpy(np.stack([drawn.colour for drawn in parameters]))
    operations = torch.from_numpy(np.stack([drawn.operations for drawn in parameters]))
    together = apply_photometrics(crops, colours, operations)
    for number in range(12):
        row = slice(number, number + 1)
        alone = apply_photometrics(crops[row], colours[row], operations[row])
        assert torch.equal(alone, together[row])


def test_operations_come_before_gray():
    image = photograph_like((8, 8))
    crops = (pixels(image) * 255).to(torch.uint8)
    view = PLAIN._replace(gray_p=1)
    colour = torch.from_numpy(view.draw(0, 0, 0, 0).colour)[None]
    operations = torch.tensor([[[float(Operation.SATURATION), 0.1]]])
    got = apply_photometrics(crops, colour, operations)
    plain = apply_photometrics(crops, colour)
    # less colourful pixels have the same gray, but for Pillow's rounding
    torch.testing.assert_close(got, plain, atol=0.02, rtol=0)
    assert apply_photometrics(crops, colour, operations[:, :0]).equal(plain)


def test_rand_augment_draws_evenly_and_leaves_half_out():
    operations = drawn("rand-augment")
    assert operations.shape[1:] == (2, 2)
    kinds = operations[:, :, 0].ravel()
    count = len(kinds)
    applied = kinds[kinds >= 0]
    assert abs(len(applied) / count - 0.5) <= 4 * (0.25 / count) ** 0.5
    shares = Counter(applied.tolist())
    assert shares.keys() == {float(kind) for kind in OPERATIONS}
    deviation = (1 / 15 * 14 / 15 / len(applied)) ** 0.5
    assert all(abs(number / len(applied) - 1 / 15) <= 4.5 * deviation for number in shares.values())


def test_rand_augments_strengths_are_normal_and_never_beyond_ten():
    operations = drawn("rand-augment").reshape(-1, 2)
    degrees = operations[operations[:, 0] == Operation.ROTATE, 1]
    assert abs(degrees).max() == 30
    # half of the magnitudes would be more than ten
    strongest = np.mean(abs(degrees) == 30)
    assert abs(strongest - 0.5) <= 4 * (0.25 / len(degrees)) ** 0.5
    weaker = abs(degrees)[abs(degrees) < 30]
    # of the lower half of a normal distribution: mean distance √(2/π) σ, of 1.5 degrees
    assert np.mean(30 - weaker) == pytest.approx(1.5 * (2 / np.pi) ** 0.5, rel=0.2)
    assert abs(np.mean(degrees > 0) - 0.5) <= 4 * (0.25 / len(degrees)) ** 0.5
    bits = operations[operations[:, 0] == Operation.POSTERIZE, 1]
    assert {*bits} == {3, 4}
    thresholds = operations[operations[:, 0] == Operation.SOLARIZE, 1]
    assert thresholds.max() == 256
    factors = operations[operations[:, 0] == Operation.CONTRAST, 1]
    assert factors.max() == pytest.approx(1.9)
    shifts = operations[operations[:, 0] == Operation.TRANSLATE_X, 1]
    assert abs(shifts).max() == pytest.approx(0.45)


def test_the_photometric_change_is_all_or_nothing_in_its_order():
    operations = drawn("photometric")
    is_applied = operations[:, 0, 0] >= 0
    assert abs(is_applied.mean() - 0.66) <= 4 * (0.66 * 0.34 / len(operations)) ** 0.5
    assert (operations[~is_applied, :, 0] == Operation.NONE).all()
    applied = operations[is_applied]
    order = [Operation.POSTERIZE, Operation.SHARPNESS, Operation.SOLARIZE, Operation.AUTO_CONTRAST]
    assert (applied[:, :, 0] == order).all()
    bits, factors, thresholds = applied[:, :3, 1].T
    assert {*bits} == {4, 5, 6, 7, 8}
    assert (factors.min(), factors.max()) == pytest.approx((0.1, 1.9), abs=0.01)
    assert 0 <= thresholds.min() < thresholds.max() <= 256


def test_operations_are_drawn_behind_all_else():
    plain, augmented = View().draw(0, 0, 5, 0), View(augment="photometric").draw(0, 0, 5, 0)
    for before, after in itertools.islice(zip(plain, augmented, strict=True), 6):
        np.testing.assert_array_equal(before, after)
    assert plain.operations.shape == (0, 2)
    puzzle, both = View(patch=8), View(patch=8, augment="photometric")
    np.testing.assert_array_equal(puzzle.draw(0, 0, 5, 0).puzzle, both.draw(0, 0, 5, 0).puzzle)


def test_a_run_records_operations_where_a_view_has_some():
    assert View(augment="photometric").settings()[-1] == {"augment": "photometric"}
    assert View().settings() == View(augment=None).settings()
