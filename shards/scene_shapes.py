"""What a procedural scene is painted of: silhouettes, textures, colours, backgrounds."""

import math
from typing import Any, NamedTuple
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

CLASSES: tuple[str, ...] = (
    "ring",
    "star",
    "cross",
    "crescent",
    "leaf",
    "flower",
    "triangle",
    "heart",
)
Plane = NDArray[np.floating[Any]]


def _appearance(label: int, x: Plane, y: Plane, scale: float) -> tuple[Plane, Plane]:
    # A class on the plane: its level (positive inside, within the unit circle) and its pattern (around −1 … 1).
    r, wave = np.hypot(x, y), 17 * scale
    match CLASSES[label]:
        case "ring":
            return 0.27 - abs(r - 0.7), np.sin(round(10 * scale) * np.arctan2(y, x))
        case "star":  # ten equal triangles: fold them on one, and ask on which side of its outer edge a point lies
            fold = abs((np.arctan2(y, x) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
            return 0.22 - r * (0.22 * np.cos(fold) + 0.5 * np.sin(fold)), np.cos(wave * x) + np.cos(
                wave * y
            ) - 0.5
        case "cross":
            level = np.minimum(0.3 - np.minimum(abs(x), abs(y)), 0.93 - np.maximum(abs(x), abs(y)))
            return level, 2 * np.sin(0.7 * wave * x) * np.sin(0.7 * wave * y)
        case "crescent":
            return np.minimum(0.97 - r, np.hypot(x - 0.5, y) - 0.74), np.sin(wave * y)
        case "leaf":  # where two circles overlap, with a midrib and veins
            return 1.3 - np.hypot(abs(x) + 0.76, y), np.where(
                abs(x) < 0.05, 1, np.sin(wave * (y - abs(x)))
            )
        case "flower":
            return 0.7 + 0.26 * np.cos(6 * np.arctan2(y, x)) - r, np.cos(wave * r)
        case "triangle":  # bricks: every second row is shifted by half a brick
            row = 0.22 * wave * y
            brick = 0.11 * wave * x + 0.5 * (np.floor(row) % 2)
            mortar = np.minimum(abs(row - np.rint(row)), 2 * abs(brick - np.rint(brick)))
            return 0.5 - np.maximum(y, 0.866 * abs(x) - 0.5 * y), 6 * (mortar - 0.2)
        case _:  # a heart
            above = 0.12 - 1.14 * y - 0.84 * abs(x) ** 0.67
            return 0.4 - 0.56 * x * x - 0.4 * above * above, np.sin(
                wave * y + 1.6 * np.sin(0.5 * wave * x)
            )


class Sprite(NamedTuple):
    label: int
    colour: Image.Image
    alpha: Image.Image
    shadow: Image.Image

    def corner(self, centre: Plane) -> tuple[int, int]:
        return round(centre[0] - self.alpha.width / 2), round(centre[1] - self.alpha.height / 2)

    def cover(
        self, centre: Plane, size: int
    ) -> NDArray[np.bool_]:  # [size, size]: where the sprite covers half of a pixel or more
        x, y = self.corner(centre)
        return np.asarray(self.alpha.crop((-x, -y, size - x, size - y))) > 127


def draw_sprite(rng: np.random.Generator, label: int, radius: float, light: Plane) -> Sprite:
    # One object of about ``radius`` pixels in random pose and colours; shapes are sampled twice per pixel, the rest once.
    half = int(1.35 * radius) + 2
    t = (np.arange(4 * half, dtype=np.float32) + 0.5 - 2 * half) / (2 * radius)
    turn, squeeze, shear = (
        rng.uniform(0, 2 * math.pi),
        rng.uniform(0.8, 1),
        rng.uniform(-0.15, 0.15),
    )
    depth = 1 + rng.uniform(-0.12, 0.12) * t + rng.uniform(-0.12, 0.12) * t[:, None]
    x = (math.cos(turn) * t + math.sin(turn) * t[:, None]) / depth
    y = (math.cos(turn) * t[:, None] - math.sin(turn) * t) / (squeeze * depth) + shear * x
    level, pattern = _appearance(label, x, y, rng.uniform(0.85, 1.15))
    tone = ((380 if rng.random() < 0.5 else -380) * pattern + 128).clip(0, 255)
    planes = np.dstack([255 * (level > 0), 255 * (level < rng.uniform(0.02, 0.07)), tone]).astype(
        np.uint8
    )
    alpha, rim, mix = Image.fromarray(planes).reduce(2).split()
    soft = np.asarray(alpha.filter(ImageFilter.GaussianBlur(0.13 * radius))) / np.float32(255)
    slope_y, slope_x = np.gradient(soft)
    # The blurred silhouette is a cushion: its slope against the light shades it.
    shade = (1 - rng.uniform(0.08, 0.18) * radius * (light[0] * slope_x + light[1] * slope_y)) * (
        1 + 0.12 * _noise(rng, 2 * half, 3)
    )
    dark, bright = (
        np.array(_colour(rng, label, 0.06, *value), np.float32)
        for value in ((0.15, 0.5), (0.65, 1.0))
    )
    colour = dark + (bright - dark) * (np.asarray(mix) / np.float32(255))[..., None]
    colour += (np.asarray(rim) * np.float32(rng.uniform(0.4, 1) / 255))[..., None] * (
        (12 if rng.random() < 0.7 else 240) - colour
    )
    colour = (colour * shade[..., None]).clip(0, 255).astype(np.uint8)
    return Sprite(
        label,
        Image.fromarray(colour),
        alpha,
        Image.fromarray((rng.uniform(60, 150) * soft).astype(np.uint8)),
    )


def draw_background(rng: np.random.Generator, label: int, size: int) -> Image.Image:
    # Two noise fields mix three colours; blobs and strokes, some of them blurred, lie over them.
    image = Image.new("RGB", (size, size), _colour(rng, label + 3.5, 0.12))
    for _ in range(2):
        field = 128 + 140 * _noise(rng, size, int(rng.integers(3, 8)))
        image.paste(
            _colour(rng, label + 3.5, 0.12),
            (0, 0),
            Image.fromarray(field.clip(0, 255).astype(np.uint8)),
        )
    for _ in range(rng.integers(2, 6)):
        mask = Image.new("L", (2 * size, 2 * size))
        draw, opacity, stroke = ImageDraw.Draw(mask), int(rng.integers(70, 220)), rng.random() < 0.6
        spine, step = (
            rng.uniform(0, 1, 2) + rng.normal(0, 0.18, (4, 2)).cumsum(0),
            rng.normal(0, 0.12, 2),
        )
        for k in range(rng.integers(1, 7)):
            points = 2 * size * (spine + k * step + rng.normal(0, 0.02, (4, 2)))
            if stroke:
                draw.line(
                    points.ravel().tolist(),
                    fill=opacity,
                    width=int(rng.integers(2, 7) * size / 64) + 1,
                    joint="curve",
                )
            else:
                radii = rng.uniform(0.02, 0.2, 2) * 2 * size
                draw.ellipse((*(points[0] - radii), *(points[0] + radii)), fill=opacity)
        blur = (0.4, 1, 4)[rng.integers(3)] * size / 96
        image.paste(
            _colour(rng, label + 3.5, 0.12),
            (0, 0),
            mask.reduce(2).filter(ImageFilter.GaussianBlur(blur)),
        )
    return image


def _noise(rng: np.random.Generator, side: int, octaves: int) -> Plane:
    # Smooth noise [side, side] of about unit range: every octave has twice the detail and half the height.
    field = Image.new("F", (2, 2))
    for n in (2 + 2**k for k in range(octaves)):
        field = Image.fromarray(
            np.asarray(field.resize((n, n))) + rng.standard_normal((n, n), np.float32) / (n - 2)
        )
    return np.asarray(field.resize((side, side)))


def _colour(
    rng: np.random.Generator, position: float, spread: float, low: float = 0.3, high: float = 0.95
) -> tuple[int, ...]:
    # Around a class's place on the colour circle; the spreads make neighbours overlap.
    hue, saturation, value = (
        position / len(CLASSES) + rng.normal(0, spread),
        rng.uniform(0.2, 0.8),
        rng.uniform(low, high),
    )
    return tuple(
        int(255 * value * (1 - saturation * math.sin(math.pi * (hue - k / 3)) ** 2))
        for k in range(3)
    )
