"""Sizes of images in pixels: the side of square ones, or height and width, as in ``96x192``.

A size is a number where images are square and a text where they are not. Both are JSON: settings of
runs, inputs of stages and files of encoders have a size as it is typed, and equal sizes are equal.
"""

import re
from typing import Annotated, NamedTuple
from shards.bounds import TypedAs
from shards.errors import Misuse

# of a side that is typed; the last map of a ResNet has 1/32 of an image's side, rounded up
LEAST_SIDE = 16
_HEIGHT_BY_WIDTH = re.compile(r"(\d+)\s*[x×]\s*(\d+)", re.IGNORECASE)


class Sides(NamedTuple):
    """The sides of an image, pixels."""

    height: int
    width: int

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width / self.height

    @property
    def shorter(self) -> int:
        """The shorter side, pixels."""
        return min(self)

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.height * self.width


def sides(size: int | str | tuple[int, int]) -> Sides:
    """Height and width of images of a size.

    Args:
        size: a side, ``96x192`` as height and width, or these two, pixels.

    Raises:
        Misuse: It is no size.
    """
    if isinstance(size, int):
        return Sides(size, size)
    if not isinstance(size, str):
        height, width = size
        return Sides(height, width)
    text = size.strip()
    match = _HEIGHT_BY_WIDTH.fullmatch(text)
    if match:
        return Sides(int(match[1]), int(match[2]))
    if re.fullmatch(r"\d+", text):
        return Sides(int(text), int(text))
    raise Misuse(f"wanted a side in pixels, or height and width such as 96x192, got {size!r}")


def image_size(size: int | str | tuple[int, int]) -> int | str:
    """A size in its one form: a number of square images, else a text such as ``96x192``.

    Args:
        size: as for ``sides``.

    Raises:
        Misuse: It is no size.
    """
    height, width = sides(size)
    return height if height == width else f"{height}x{width}"


def typed_size(text: int | str) -> int | str:
    """A size as somebody types it, in its one form.

    Args:
        text: as for ``sides``.

    Raises:
        Misuse: It is no size, or one that is too small for any network here.
    """
    if sides(text).shorter < LEAST_SIDE:
        raise Misuse(f"wanted sides of at least {LEAST_SIDE} px, got {text}")
    return image_size(text)


# in pixels, of views and crops
ImageSize = Annotated[int | str, TypedAs("PIXELS|HxW", typed_size)]
