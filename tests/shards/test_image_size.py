"""Sizes of images: a side, or height and width, and one form of each."""

import pytest
from shards.errors import Misuse
from shards.image_size import LEAST_SIDE, image_size, sides, typed_size


@pytest.mark.parametrize(
    ("typed", "form", "height", "width"),
    [
        (224, 224, 224, 224),
        ("224", 224, 224, 224),
        ("96x192", "96x192", 96, 192),
        ("192X96", "192x96", 192, 96),
        (" 96 × 192 ", "96x192", 96, 192),
        ("96x96", 96, 96, 96),
        ((96, 192), "96x192", 96, 192),
    ],
)
def test_each_size_has_one_form_which_is_json(typed, form, height, width):
    assert image_size(typed) == form
    assert type(image_size(typed)) is type(form)
    assert sides(typed) == (height, width)
    assert sides(form) == (height, width)


@pytest.mark.parametrize("typed", ["", "big", "96x", "x96", "-96", "96x192x3", "9.5", "96,192"])
def test_what_is_no_size_is_answered_by_what_one_looks_like(typed):
    with pytest.raises(Misuse, match=r"wanted a side in pixels, or height and width such as 96"):
        image_size(typed)


@pytest.mark.parametrize("typed", ["15", 15, "96x15", "0x96"])
def test_a_typed_size_is_as_large_as_networks_need(typed):
    with pytest.raises(Misuse, match=f"sides of at least {LEAST_SIDE} px, got {typed}"):
        typed_size(typed)
    assert typed_size("16x300") == "16x300"


def test_pixels_shape_and_shorter_side_of_a_size():
    size = sides("96x192")
    assert (size.pixels, size.aspect, size.shorter) == (96 * 192, 2, 96)
