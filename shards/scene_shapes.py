"""What a procedural scene is painted of: silhouettes, textures, colours, backgrounds.

All functions draw from the generator that they are given. Which numbers they draw, and in which
order, decides every pixel: a change here makes other scenes.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Plane = NDArray[np.floating[Any]]

# how far, around the circle of colours, the hue of an object and of a background spreads; one class
# is 1 / len(CLASSES) from the next, so that neighbours overlap
_OBJECT_SPREAD = 0.06
_BACKGROUND_SPREAD = 0.12
# a background tends to a hue half-way between two classes, so many classes on
_BACKGROUND_SHIFT = 3.5


class Sprite(NamedTuple):
    """One object in pixels.

    All its images are squares of one size.

    Attributes:
        label: its class, a position in ``CLASSES``.
        colour: RGB, shaded.
        alpha: its silhouette, 0…255.
        shadow: how dark its shadow is, 0…255.
    """

    label: int
    colour: Image.Image
    alpha: Image.Image
    shadow: Image.Image

    def corner(self, centre: Plane) -> tuple[int, int]:
        """The upper left corner (x, y) of the sprite if its centre is at ``centre`` [2]."""
        x = round(centre[0] - self.alpha.width / 2)
        y = round(centre[1] - self.alpha.height / 2)
        return x, y

    def cover(self, centre: Plane, size: int) -> NDArray[np.bool_]:
        """Where the sprite covers half of a pixel or more, in an image [size, size]."""
        x, y = self.corner(centre)
        in_image = self.alpha.crop((-x, -y, size - x, size - y))
        return np.asarray(in_image) > 127


class _Shape(NamedTuple):
    """A class on a plane of points.

    Attributes:
        level: positive inside of the silhouette, which lies within the unit circle.
        pattern: the texture, around −1…1.
    """

    level: Plane
    pattern: Plane


def _ring(x: Plane, y: Plane, scale: float) -> _Shape:
    rays = round(10 * scale)
    level = 0.27 - abs(np.hypot(x, y) - 0.7)
    return _Shape(level, np.sin(rays * np.arctan2(y, x)))


def _star(x: Plane, y: Plane, scale: float) -> _Shape:
    wave = 17 * scale
    # ten equal triangles: fold them on one, and ask on which side of its outer edge a point lies
    half_tip = np.pi / 5
    fold = abs((np.arctan2(y, x) + half_tip) % (2 * half_tip) - half_tip)
    edge = 0.22 * np.cos(fold) + 0.5 * np.sin(fold)
    level = 0.22 - np.hypot(x, y) * edge
    pattern = np.cos(wave * x) + np.cos(wave * y) - 0.5
    return _Shape(level, pattern)


def _cross(x: Plane, y: Plane, scale: float) -> _Shape:
    wave = 17 * scale
    bars = 0.3 - np.minimum(abs(x), abs(y))
    ends = 0.93 - np.maximum(abs(x), abs(y))
    pattern = 2 * np.sin(0.7 * wave * x) * np.sin(0.7 * wave * y)
    return _Shape(np.minimum(bars, ends), pattern)


def _crescent(x: Plane, y: Plane, scale: float) -> _Shape:
    disc = 0.97 - np.hypot(x, y)
    bite = np.hypot(x - 0.5, y) - 0.74
    return _Shape(np.minimum(disc, bite), np.sin(17 * scale * y))


def _leaf(x: Plane, y: Plane, scale: float) -> _Shape:
    # where two circles overlap, with a midrib and veins
    level = 1.3 - np.hypot(abs(x) + 0.76, y)
    veins = np.sin(17 * scale * (y - abs(x)))
    return _Shape(level, np.where(abs(x) < 0.05, 1, veins))


def _flower(x: Plane, y: Plane, scale: float) -> _Shape:
    radius = np.hypot(x, y)
    petals = 0.26 * np.cos(6 * np.arctan2(y, x))
    return _Shape(0.7 + petals - radius, np.cos(17 * scale * radius))


def _triangle(x: Plane, y: Plane, scale: float) -> _Shape:
    wave = 17 * scale
    # bricks: every second row is shifted by half a brick
    row = 0.22 * wave * y
    brick = 0.11 * wave * x + 0.5 * (np.floor(row) % 2)
    to_row = abs(row - np.rint(row))
    to_brick = abs(brick - np.rint(brick))
    mortar = np.minimum(to_row, 2 * to_brick)
    level = 0.5 - np.maximum(y, 0.866 * abs(x) - 0.5 * y)
    return _Shape(level, 6 * (mortar - 0.2))


def _heart(x: Plane, y: Plane, scale: float) -> _Shape:
    wave = 17 * scale
    above = 0.12 - 1.14 * y - 0.84 * abs(x) ** 0.67
    level = 0.4 - 0.56 * x * x - 0.4 * above * above
    ripple = 1.6 * np.sin(0.5 * wave * x)
    return _Shape(level, np.sin(wave * y + ripple))


_SHAPES: dict[str, Callable[[Plane, Plane, float], _Shape]] = {
    "ring": _ring,
    "star": _star,
    "cross": _cross,
    "crescent": _crescent,
    "leaf": _leaf,
    "flower": _flower,
    "triangle": _triangle,
    "heart": _heart,
}
CLASSES = tuple(_SHAPES)


def draw_sprite(rng: np.random.Generator, label: int, radius: float, light: Plane) -> Sprite:
    """Draw one object in random pose and colours.

    Args:
        rng: what is drawn from.
        label: its class, a position in ``CLASSES``.
        radius: about how large it is, in pixels.
        light: the direction of the light [2].

    Returns:
        The object.
    """
    half = int(1.35 * radius) + 2
    x, y = _posed_plane(rng, half, radius)
    shape = _SHAPES[CLASSES[label]](x, y, rng.uniform(0.85, 1.15))
    contrast = 380 if rng.random() < 0.5 else -380
    tone = (contrast * shape.pattern + 128).clip(0, 255)
    inside = shape.level > 0
    near_edge = shape.level < rng.uniform(0.02, 0.07)
    planes = np.dstack([255 * inside, 255 * near_edge, tone]).astype(np.uint8)
    # shapes are sampled twice per pixel, the rest once
    alpha, rim, mix = Image.fromarray(planes).reduce(2).split()
    # the slope of the blurred silhouette against the light shades it
    cushion = alpha.filter(ImageFilter.GaussianBlur(0.13 * radius))
    soft = np.asarray(cushion) / np.float32(255)
    slope_y, slope_x = np.gradient(soft)
    relief = rng.uniform(0.08, 0.18) * radius * (light[0] * slope_x + light[1] * slope_y)
    shade = (1 - relief) * (1 + 0.12 * _noise(rng, 2 * half, 3))
    dark = np.array(_colour(rng, label, _OBJECT_SPREAD, 0.15, 0.5), np.float32)
    bright = np.array(_colour(rng, label, _OBJECT_SPREAD, 0.65, 1.0), np.float32)
    bright_share = np.asarray(mix) / np.float32(255)
    colour = dark + (bright - dark) * bright_share[..., None]
    rim_weight = np.asarray(rim) * np.float32(rng.uniform(0.4, 1) / 255)
    rim_tone = 12 if rng.random() < 0.7 else 240
    colour += rim_weight[..., None] * (rim_tone - colour)
    shaded = (colour * shade[..., None]).clip(0, 255).astype(np.uint8)
    shadow = (rng.uniform(60, 150) * soft).astype(np.uint8)
    return Sprite(label, Image.fromarray(shaded), alpha, Image.fromarray(shadow))


def draw_background(rng: np.random.Generator, label: int, size: int) -> Image.Image:
    """Draw a cluttered background.

    Two noise fields mix three colours; blobs and strokes, some of them blurred, lie over them.

    Args:
        rng: what is drawn from.
        label: the class that its colours tend to go with.
        size: height and width in pixels.

    Returns:
        An RGB image.
    """
    hue = label + _BACKGROUND_SHIFT
    image = Image.new("RGB", (size, size), _colour(rng, hue, _BACKGROUND_SPREAD))
    for _ in range(2):
        field = 128 + 140 * _noise(rng, size, int(rng.integers(3, 8)))
        weight = Image.fromarray(field.clip(0, 255).astype(np.uint8))
        image.paste(_colour(rng, hue, _BACKGROUND_SPREAD), (0, 0), weight)
    for _ in range(rng.integers(2, 6)):
        mask = _clutter(rng, size)
        blur = (0.4, 1, 4)[rng.integers(3)] * size / 96
        weight = mask.reduce(2).filter(ImageFilter.GaussianBlur(blur))
        image.paste(_colour(rng, hue, _BACKGROUND_SPREAD), (0, 0), weight)
    return image


def _posed_plane(rng: np.random.Generator, half: int, radius: float) -> tuple[Plane, Plane]:
    """The points of a sprite, in the coordinates of its shape, turned and in perspective.

    Args:
        rng: what is drawn from.
        half: half the side of the sprite in pixels.
        radius: pixels for a unit of the shape.

    Returns:
        x and y [4 half, 4 half], two points a pixel.
    """
    centres = np.arange(4 * half, dtype=np.float32) + 0.5 - 2 * half
    across = centres / (2 * radius)
    down = across[:, None]
    turn = rng.uniform(0, 2 * math.pi)
    squeeze = rng.uniform(0.8, 1)
    shear = rng.uniform(-0.15, 0.15)
    depth = 1 + rng.uniform(-0.12, 0.12) * across + rng.uniform(-0.12, 0.12) * down
    x = (math.cos(turn) * across + math.sin(turn) * down) / depth
    y = (math.cos(turn) * down - math.sin(turn) * across) / (squeeze * depth) + shear * x
    return x, y


def _clutter(rng: np.random.Generator, size: int) -> Image.Image:
    """A mask of one to six similar strokes or blobs, with two pixels for one of the image."""
    mask = Image.new("L", (2 * size, 2 * size))
    draw = ImageDraw.Draw(mask)
    opacity = int(rng.integers(70, 220))
    stroke = rng.random() < 0.6
    start = rng.uniform(0, 1, 2)
    spine = start + rng.normal(0, 0.18, (4, 2)).cumsum(0)
    step = rng.normal(0, 0.12, 2)
    for number in range(rng.integers(1, 7)):
        jitter = rng.normal(0, 0.02, (4, 2))
        points = 2 * size * (spine + number * step + jitter)
        if stroke:
            width = int(rng.integers(2, 7) * size / 64) + 1
            draw.line(points.ravel().tolist(), fill=opacity, width=width, joint="curve")
        else:
            radii = rng.uniform(0.02, 0.2, 2) * 2 * size
            centre = points[0]
            draw.ellipse((*(centre - radii), *(centre + radii)), fill=opacity)
    return mask


def _noise(rng: np.random.Generator, side: int, octaves: int) -> Plane:
    """Smooth noise [side, side] of about unit range.

    Every octave has twice the detail and half the height.
    """
    field = Image.new("F", (2, 2))
    for octave in range(octaves):
        n = 2 + 2**octave
        detail = rng.standard_normal((n, n), np.float32) / (n - 2)
        coarse = np.asarray(field.resize((n, n)))
        field = Image.fromarray(coarse + detail)
    return np.asarray(field.resize((side, side)))


def _colour(
    rng: np.random.Generator, position: float, spread: float, low: float = 0.3, high: float = 0.95
) -> tuple[int, ...]:
    """A random colour around a class's place on the circle of colours.

    Args:
        rng: what is drawn from.
        position: the number of a class, or between two of them.
        spread: standard deviation of the hue, in turns of the circle.
        low: least brightness.
        high: most brightness.

    Returns:
        Red, green and blue, 0…255.
    """
    hue = position / len(CLASSES) + rng.normal(0, spread)
    saturation = rng.uniform(0.2, 0.8)
    value = rng.uniform(low, high)
    channels = list[int]()
    for channel in range(3):
        distance = math.sin(math.pi * (hue - channel / 3)) ** 2
        channels.append(int(255 * value * (1 - saturation * distance)))
    return tuple(channels)
