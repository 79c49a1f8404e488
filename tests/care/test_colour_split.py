"""Lightness and colour of images, and encoders of both."""

import pytest
import torch
from care import CareError, build_encoder
from care.colour_split import SPACES, split_colours
from care.encoded import evaluating
from care.train.photometrics import normalize

CORNERS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0), (1, 1, 0), (1, 0, 1))
# of sRGB's primaries under D65, as tables of colour science have them
LAB = (
    (53.24, 80.09, 67.20),
    (87.73, -86.18, 83.18),
    (32.30, 79.19, -107.86),
    (100, 0, 0),
    (0, 0, 0),
    (97.14, -21.55, 94.48),
    (60.32, 98.23, -60.82),
)
# SECAM's luma, 1.505 · (B − Y) and −1.902 · (R − Y)
YDBDR = tuple(
    (y, 1.505 * (b - y), -1.902 * (r - y))
    for (r, _, b), y in zip(CORNERS, (0.299, 0.587, 0.114, 1, 0, 0.886, 0.413), strict=True)
)


def images_of(colours):
    return normalize(torch.tensor(colours, dtype=torch.float32)[:, :, None, None])


@pytest.mark.parametrize(
    ("space", "want", "tolerance"), [("lab", LAB, 0.02), ("ydbdr", YDBDR, 2e-3)]
)
def test_channels_are_those_of_colour_science(space, want, tolerance):
    got = split_colours(images_of(CORNERS), space)[:, :, 0, 0]
    mean, std = (torch.tensor(numbers) for numbers in SPACES[space])
    torch.testing.assert_close(got * std + mean, torch.tensor(want), rtol=0, atol=tolerance)


def test_lab_is_in_its_ranges_within_1():
    """As CMC's code normalises it: the extremes of its channels are at −1 and 1."""
    steps = torch.linspace(0, 1, 9)
    grid = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), dim=-1).reshape(-1, 3)
    got = split_colours(images_of(grid.tolist()), "lab")
    torch.testing.assert_close(got.amax((0, 2, 3)), torch.ones(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(got.amin((0, 2, 3)), -torch.ones(3), rtol=0, atol=1e-3)


def test_gray_images_have_no_colour_and_in_half_precision_they_are_the_same():
    gray = images_of([(value / 8,) * 3 for value in range(9)])
    got = split_colours(gray, "lab")
    colour = got * torch.tensor(SPACES["lab"].std)[:, None, None]
    colour += torch.tensor(SPACES["lab"].mean)[:, None, None]
    assert colour[:, 1:].abs().max() < 0.02
    reduced = split_colours(gray.bfloat16(), "lab")
    assert reduced.dtype == torch.bfloat16
    torch.testing.assert_close(reduced.float(), got, rtol=0, atol=0.05)


@pytest.mark.parametrize("space", SPACES)
def test_colours_are_of_full_precision_under_autocast(space):
    images = images_of(CORNERS) / 3
    with torch.autocast("cpu", torch.bfloat16):
        got = split_colours(images, space)
    assert torch.equal(got, split_colours(images, space))


@pytest.mark.parametrize("space", SPACES)
def test_in_float64_an_image_does_not_depend_on_those_beside_it(space):
    images = torch.rand(7, 3, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = split_colours(images, space)
    assert got.dtype == torch.float64
    alone = torch.cat([split_colours(image[None], space) for image in images])
    torch.testing.assert_close(got, alone, rtol=0, atol=1e-12)
    in_float32 = split_colours(images.float(), space)
    assert 0 < (got - in_float32).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["lab:resnet18-small-half", "ydbdr:resnet18-small-half:layer2"])
def test_features_and_maps_are_those_of_both_encoders(name):
    torch.manual_seed(0)
    encoder = build_encoder(name)
    assert encoder.name == name
    assert encoder.features == 512
    images = torch.randn(2, 3, 32, 32)
    with evaluating(encoder), torch.no_grad():
        encoded = encoder(images)
        channels = split_colours(images, encoder.space)
        apart = encoder.lightness(channels[:, :1]), encoder.colour(channels[:, 1:])
        stages = encoder.maps(images)
    assert torch.equal(encoded.features, torch.cat([part.features for part in apart], 1))
    assert torch.equal(encoded.map, torch.cat([part.map for part in apart], 1))
    assert torch.equal(stages[encoder.lightness.tap], encoded.map)


def test_other_networks_cannot_be_split():
    for name in ("torchvision:mobilenet_v3_small:features.3", "resnet18-gray"):
        with pytest.raises(CareError, match="wanted a ResNet of colours behind lab: or ydbdr:"):
            build_encoder(f"lab:{name}")
    with pytest.raises(CareError, match="no encoder is called 'resnet19'"):
        build_encoder("lab:resnet19")
