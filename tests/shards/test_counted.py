"""Counts in sentences: of one image, and of several."""

import pytest
from shards.counted import images_that


@pytest.mark.parametrize(
    ("count", "total", "text"),
    [
        (1, None, "1 image is"),
        (2, None, "2 images are"),
        (0, None, "0 images are"),
        (2000, None, "2,000 images are"),
        (1, 12, "1 of 12 images is"),
        (3, 12, "3 of 12 images are"),
    ],
)
def test_the_verb_fits_the_count(count, total, text):
    assert images_that(count, "is", "are", total=total) == text
