import itertools
import math
import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as pil_ops
from torchvision.transforms.v2 import functional as tv
from care.train import VIEWS, View
from care.train.photometrics import apply_photometrics, crop, normalize

NONE = (-1,) * 4
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
PLAIN = View(jitter_p=0, blur_p=0, gray_p=0, flip_p=0, solarize_p=0)


def numbers(order=NONE, factors=(1, 1, 1, 0), sigma=0, gray=0, solarize=0):
    return torch.tensor([[*order, *factors, sigma, gray, solarize]], dtype=torch.float32)


def levels(normalized):
    """Back to 0…255."""
    mean, std = (
        torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    return (normalized * std + mean) * 255


def noise(seed, size=(40, 40)):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    )


def batch(*images):
    return torch.stack(
        [torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) for image in images]
    )


def draws(view, count):
    return [view.draw(0, 0, sample, 0) for sample in range(count)]


def close_means(some, others):
    """Equal up to four standard errors."""
    some, others = np.asarray(some, dtype=float), np.asarray(others, dtype=float)
    return abs(some.mean() - others.mean()) <= 4 * math.sqrt(
        some.var() / len(some) + others.var() / len(others)
    )


# drawing


def flat(drawn):
    return np.concatenate([np.ravel(part) for part in drawn]).tolist()


def test_a_views_numbers_depend_on_its_arguments_alone():
    before = np.random.get_state()[1].tolist()
    want = flat(View().draw(1, 2, 3, 0))
    assert flat(View().draw(1, 2, 3, 0)) == want
    assert np.random.get_state()[1].tolist() == before
    others = [
        flat(View().draw(*at))
        for at in ((0, 2, 3, 0), (1, 0, 3, 0), (1, 2, 0, 0), (1, 2, 3, 1), (2, 1, 3, 0))
    ]
    assert all(other[:10] != want[:10] for other in others)


def test_one_probability_changes_without_moving_the_other_numbers():
    one, two = (
        View().draw(0, 0, 5, 0),
        View(jitter_p=0, flip_p=1, blur_p=0, gray_p=1, solarize_p=1).draw(0, 0, 5, 0),
    )
    assert [part.tolist() for part in one[:3]] == [part.tolist() for part in two[:3]]
    assert one.colour[4:8].tolist() == two.colour[4:8].tolist()
    assert (two.flip, two.colour[:4].tolist(), two.colour[8:].tolist()) == (
        True,
        [-1] * 4,
        [0, 1, 1],
    )


def test_patches_draw_behind_what_every_view_draws():
    plain, puzzle = View().draw(0, 0, 5, 0), View(patch=8).draw(0, 0, 5, 0)
    assert flat(plain[:5]) == flat(puzzle[:5])
    assert plain.puzzle.shape == (0, 3)
    assert sorted(puzzle.puzzle[:, 0]) == list(range(9))


def test_a_view_is_recorded_as_by_version_0_1_until_it_has_what_that_did_not_know():
    recorded = [(0.08, 1.0), (3 / 4, 4 / 3), (0.4, 0.4, 0.2, 0.1), 0.8, (0.1, 2.0), 1.0, 0.2, 0.5]
    assert View().settings() == [*recorded, 0.0]
    assert View(size=96, patch=32).settings() == [*recorded, 0.0, {"size": 96}, {"patch": 32}]


def test_crops_are_distributed_as_torchvisions():
    image = Image.new("RGB", (100, 75))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = [
            RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)
        ]
    top, left, height, width = np.asarray(theirs).T
    x1, y1, x2, y2 = np.asarray([drawn.box(100, 75) for drawn in draws(View(), 4000)]).T
    assert min(x1.min(), y1.min()) == 0
    assert (x2.max(), y2.max()) == (100, 75)
    pairs = {
        "area": ((x2 - x1) * (y2 - y1), width * height),
        "ratio": (np.log((x2 - x1) / (y2 - y1)), np.log(width / height)),
        "left": (x1, left),
        "top": (y1, top),
    }
    for name, (ours, expected) in pairs.items():
        assert close_means(ours, expected), name
        assert close_means((ours - ours.mean()) ** 2, (expected - expected.mean()) ** 2), name
    area, expected = pairs["area"]
    assert area.max() == pytest.approx(expected.max(), rel=0.02)
    assert area.min() == pytest.approx(expected.min(), rel=0.02)


def test_shapes_of_crops_are_drawn_around_that_of_the_view():
    image = Image.new("RGB", (200, 100))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = [
            RandomResizedCrop.get_params(image, [0.08, 1.0], [1.5, 8 / 3]) for _ in range(4000)
        ]
    _, _, height, width = np.asarray(theirs).T
    x1, y1, x2, y2 = np.asarray([drawn.box(200, 100, 2.0) for drawn in draws(View(), 4000)]).T
    assert close_means((x2 - x1) * (y2 - y1), width * height)
    ours = np.log((x2 - x1) / (y2 - y1))
    assert close_means(ours, np.log(width / height))
    assert close_means((ours - ours.mean()) ** 2, (np.log(width / height) - ours.mean()) ** 2)


@pytest.mark.parametrize(("size", "aspect"), [((900, 10), 2.0), ((10, 900), 2.0), ((100, 90), 0.2)])
def test_the_central_crop_has_about_the_shape_of_the_view(size, aspect):
    ratio = [aspect * 3 / 4, aspect * 4 / 3]
    top, left, height, width = RandomResizedCrop.get_params(
        Image.new("RGB", size), [0.99, 1.0], ratio
    )
    box = View(scale=(0.99, 1)).draw(0, 0, 0, 0).box(*size, aspect)
    assert box == (left, top, left + width, top + height)


def test_a_view_that_is_not_square_is_torchvisions_crop_resized_to_height_and_width():
    image = noise(0, (100, 75))
    for drawn in draws(View(flip_p=0), 5):
        left, top, right, bottom = drawn.box(100, 75, 3.0)
        want = pil_ops.resized_crop(
            image,
            top,
            left,
            bottom - top,
            right - left,
            [16, 48],
            interpolation=pil_ops.InterpolationMode.BILINEAR,
        )
        pixels = crop(np.array(image), drawn, "16x48")
        assert pixels.shape == (3, 16, 48)
        assert abs(pixels.astype(int) - np.asarray(want).transpose(2, 0, 1)).max() <= 1


@pytest.mark.parametrize("size", [(400, 10), (10, 400), (500, 3), (1, 1)])
def test_where_no_crop_fits_it_is_torchvisions_central_one(size):
    top, left, height, width = RandomResizedCrop.get_params(
        Image.new("RGB", size), [0.9, 1.0], [3 / 4, 4 / 3]
    )
    assert View(scale=(0.9, 1)).draw(0, 0, 0, 0).box(*size) == (
        left,
        top,
        left + width,
        top + height,
    )


def test_shares_and_ranges_are_the_papers():
    for view, blurred, solarized in ((VIEWS[0], 1.0, 0.0), (VIEWS[1], 0.1, 0.2)):
        drawn = draws(view, 3000)
        c = np.stack([d.colour for d in drawn])
        happened = [d.flip for d in drawn], c[:, 0] >= 0, c[:, 9] > 0, c[:, 8] > 0, c[:, 10] > 0
        for p, cases in zip((0.5, 0.8, 0.2, blurred, solarized), happened, strict=True):
            assert abs(np.mean(cases) - p) <= 4 * math.sqrt(p * (1 - p) / 3000), p
        for column, (low, high) in zip(
            c[:, 4:8].T, ((0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)), strict=True
        ):
            assert low <= column.min() + 1e-6
            assert column.max() <= high + 1e-6
            assert column.min() < low + 0.01 * (high - low)
            assert column.max() > high - 0.01 * (high - low)
            assert close_means(column, np.linspace(low, high, 3000))
        sigmas = c[c[:, 8] > 0, 8]
        assert sigmas.min() >= 0.1
        assert sigmas.max() <= 2
        assert close_means(sigmas, np.linspace(0.1, 2, 3000))
        orders = {tuple(row) for row in c[c[:, 0] >= 0, :4].astype(int).tolist()}
        assert orders == set(itertools.permutations(range(4)))


# cropping


@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_is_torchvisions(flip):
    image = noise(0, (100, 75))
    for drawn in draws(View(flip_p=float(flip)), 20):
        left, top, right, bottom = drawn.box(100, 75)
        want = pil_ops.resized_crop(
            image,
            top,
            left,
            bottom - top,
            right - left,
            [32, 32],
            interpolation=pil_ops.InterpolationMode.BILINEAR,
        )
        want = ImageOps.mirror(want) if flip else want
        difference = crop(np.array(image), drawn, 32).astype(int) - np.asarray(want).transpose(
            2, 0, 1
        )
        assert abs(difference).max() <= 1
        assert abs(difference).mean() < 0.4
        assert abs(difference.mean()) < 0.1


def test_without_colour_changes_a_view_is_the_normalised_crop():
    image = noise(1, (60, 50))
    drawn = PLAIN.draw(0, 0, 3, 0)
    pixels = crop(np.array(image), drawn, 24)
    got = apply_photometrics(
        torch.from_numpy(pixels.copy())[None], torch.from_numpy(drawn.colour)[None]
    )
    box = drawn.box(60, 50)
    want = pil_ops.to_tensor(image.crop(box).resize((24, 24), Image.Resampling.BILINEAR))
    want = pil_ops.normalize(want, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(
        got[0], want, rtol=0, atol=1.01 / 255 / 0.224
    )  # a level of the resizing's rounding
    assert (got[0] - want).abs().mean() < 0.4 / 255 / 0.224


# colours


@pytest.fixture
def pictures(make_image):
    """A smooth picture and noise."""
    return [make_image(3), noise(4)]


JITTER = [
    (BRIGHTNESS, tv.adjust_brightness, ImageEnhance.Brightness),
    (CONTRAST, tv.adjust_contrast, ImageEnhance.Contrast),
    (SATURATION, tv.adjust_saturation, ImageEnhance.Color),
]


@pytest.mark.parametrize(("operation", "torchvision", "pillow"), JITTER)
@pytest.mark.parametrize("factor", [0.6, 0.85, 1.0, 1.25, 1.4])
def test_brightness_contrast_and_saturation(operation, torchvision, pillow, factor, pictures):
    factors = [1.0, 1.0, 1.0, 0.0]
    factors[operation] = factor
    row = numbers((operation, -1, -1, -1), factors)
    got = levels(apply_photometrics(batch(*pictures), row.expand(2, -1)))
    theirs = 255 * torch.stack([torchvision(x, factor) for x in batch(*pictures).float() / 255])
    torch.testing.assert_close(got, theirs, rtol=0, atol=0.02)  # torchvision's red weighs 0.2989
    pil = batch(*(pillow(picture).enhance(factor) for picture in pictures)).float()
    # Pillow's blend truncates to 8 bits: half a level darker on average, at most one, and its mean
    # gray is a whole number
    assert (got - pil).abs().max() <= 1.25
    assert (got - pil).abs().mean() <= 0.6
    assert (got - pil).mean() >= -0.1


@pytest.mark.parametrize("shift", [-0.1, -0.04, 0.0, 0.05, 0.1])
def test_hue(shift, pictures):
    images = batch(
        *pictures, Image.new("RGB", (40, 40), (90, 90, 90)), Image.new("RGB", (40, 40), (255, 0, 0))
    )
    got = levels(
        apply_photometrics(images, numbers((HUE, -1, -1, -1), (1, 1, 1, shift)).expand(4, -1))
    )
    torch.testing.assert_close(
        got, 255 * tv.adjust_hue(images.float() / 255, shift), rtol=0, atol=0.01
    )
    assert (got[2] - 90).abs().max() < 0.01


def test_the_jitters_order_is_the_drawn_one(make_image):
    orders = list(itertools.permutations(range(4)))
    factors = (1.3, 0.7, 1.2, 0.08)
    x = batch(make_image(5)).expand(24, -1, -1, -1)
    rows = torch.cat([numbers(order, factors) for order in orders])
    got = levels(apply_photometrics(x, rows))
    operations = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for n, order in enumerate(orders):
        want = x[n].float() / 255
        for operation in order:
            want = operations[operation](want, factors[operation])
        torch.testing.assert_close(got[n], 255 * want, rtol=0, atol=0.1)
    assert len({tuple(image.flatten().tolist()) for image in got.round(decimals=2)}) > 12


def test_gray_and_solarize(pictures):
    x = batch(*pictures)
    gray = levels(apply_photometrics(x, numbers(gray=1).expand(2, -1)))
    pil = batch(*(picture.convert("L") for picture in pictures)).float()
    assert (gray - pil).abs().max() <= 0.51  # Pillow rounds to whole levels
    assert (gray - pil).mean().abs() <= 0.1
    solarized = levels(apply_photometrics(x, numbers(solarize=1).expand(2, -1)))
    pil = batch(*(ImageOps.solarize(picture, 128) for picture in pictures)).float()
    torch.testing.assert_close(solarized, pil, rtol=0, atol=1e-3)


def three_boxes(channel, sigma):
    """Pillow's Gaussian blur without its rounding.

    It is a box of fractional radius, three times along each axis.
    """
    length = math.sqrt(12 * sigma**2 / 3 + 1)
    whole = math.floor((length - 1) / 2)
    edge = (
        (2 * whole + 1) * (whole * (whole + 1) - sigma**2) / (6 * (sigma**2 / 3 - (whole + 1) ** 2))
    )
    for axis in (0, 0, 0, 1, 1, 1):
        n = channel.shape[axis]
        parts = {
            offset: channel.take(np.clip(np.arange(n) + offset, 0, n - 1), axis)
            for offset in range(-whole - 1, whole + 2)
        }
        channel = sum(
            part * (edge if abs(offset) == whole + 1 else 1) for offset, part in parts.items()
        ) / (2 * (whole + edge) + 1)
    return channel


def test_blur_is_pillows(pictures):
    sigmas = [0.1, 0.4, 0.7, 1.0, 1.3, 1.7, 2.0]
    for picture in pictures:
        got = levels(
            apply_photometrics(batch(*[picture] * 7), torch.cat([numbers(sigma=s) for s in sigmas]))
        )
        for blurred, sigma in zip(got, sigmas, strict=True):
            exact = np.stack(
                [
                    three_boxes(channel, sigma)
                    for channel in np.asarray(picture, dtype=float).transpose(2, 0, 1)
                ]
            )
            torch.testing.assert_close(blurred.double(), torch.from_numpy(exact), rtol=0, atol=0.01)
            pil = batch(picture.filter(ImageFilter.GaussianBlur(sigma)))[0].float()
            assert (blurred - pil).abs().mean() <= (0.75 if sigma > 0.1 else 1.25), (
                sigma
            )  # it rounds after each of the six passes
            assert (blurred - pil).abs().max() <= 3.1, sigma


def test_a_blur_of_each_rows_own_sigma_and_of_views_that_are_not_square():
    x = batch(noise(6, (30, 20)), noise(7, (30, 20)), noise(8, (30, 20)))
    got = levels(
        apply_photometrics(x, torch.cat([numbers(sigma=2), numbers(), numbers(sigma=0.5)]))
    )
    torch.testing.assert_close(got[1], x[1].float(), rtol=0, atol=1e-3)
    for n, sigma in ((0, 2), (2, 0.5)):
        want = np.stack([three_boxes(channel, sigma) for channel in x[n].double().numpy()])
        torch.testing.assert_close(got[n].double(), torch.from_numpy(want), rtol=0, atol=0.01)


def test_the_chain_has_the_order_of_the_released_code(make_image):
    """Jitter, blur, grayscale, solarize; the images of a batch do not touch each other."""
    view = View(gray_p=0.3, solarize_p=0.5, blur_p=0.5, flip_p=0)
    pictures = [make_image(n) for n in range(16)]
    drawn = [view.draw(0, 0, n, 0) for n in range(16)]
    got = levels(
        apply_photometrics(batch(*pictures), torch.from_numpy(np.stack([d.colour for d in drawn])))
    )
    operations = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for picture, d, mine in zip(pictures, drawn, got, strict=True):
        want = batch(picture)[0].float() / 255
        for operation in d.colour[:4].astype(int):
            want = (
                operations[operation](want, float(d.colour[4 + operation]))
                if operation >= 0
                else want
            )
        if d.colour[8]:
            want = torch.from_numpy(
                np.stack([three_boxes(c, float(d.colour[8])) for c in want.double().numpy()])
            ).float()
        want = tv.rgb_to_grayscale(want, num_output_channels=3) if d.colour[9] else want
        clear = (
            want * 255 - 127.5
        ).abs() > 0.1  # elsewhere rounding decides on which side of the threshold a pixel is
        want = tv.solarize(want, 127.5 / 255) if d.colour[10] else want
        assert clear.float().mean() > 0.99
        torch.testing.assert_close(mine[clear], 255 * want[clear], rtol=0, atol=0.1)


def test_the_input_is_left_alone_and_the_output_is_normalised():
    x = batch(noise(0))
    before = x.clone()
    got = apply_photometrics(x, numbers((0, 1, 2, 3), (1.4, 1.4, 1.2, 0.1), 1, 1, 1))
    assert torch.equal(x, before)
    assert got.dtype == torch.float32
    assert got.isfinite().all()
    want = pil_ops.normalize(x.float() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(normalize(x.float() / 255), want)


@pytest.mark.parametrize("size", [48, 224])
def test_a_views_bits_do_not_depend_on_those_beside_it(size, monkeypatch):
    crops = batch(*(noise(n, (size, size)) for n in range(5)))
    drawn = torch.from_numpy(
        np.stack([View(solarize_p=0.5).draw(0, 0, n, 0).colour for n in range(5)])
    )
    together = apply_photometrics(crops, drawn)
    assert torch.equal(
        together,
        torch.cat([apply_photometrics(crops[n : n + 1], drawn[n : n + 1]) for n in range(5)]),
    )
    monkeypatch.setattr("care.train.photometrics.CACHED", 10**9)
    assert torch.equal(together, apply_photometrics(crops, drawn))


def test_crops_must_be_bytes():
    with pytest.raises(TypeCheckError):
        apply_photometrics(batch(noise(0)).float(), numbers())
