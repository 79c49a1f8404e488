"""Procedural scenes, the default data: silhouette and texture tell an object's class for sure, colour and surroundings only tend to."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from shards import storage
from shards.errors import ShardError
from shards.progress import progress

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
MAIN_VISIBLE = 0.6  # least share of the main object's whole silhouette that is seen, whatever the frame and other objects hide
TINY = 0.004  # an object that is seen on less than this share of the image is not recorded
Plane = NDArray[np.floating[Any]]


class SceneObject(NamedTuple):
    """What is seen of one object: ``mask`` [H, W], true where it is in front; ``box`` (x, y, width, height) of the mask in pixels."""

    label: int
    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]


class Scene(NamedTuple):
    """``image`` [H, W, 3] RGB; ``objects`` with disjoint masks, the main one first; ``label``, the main one's class."""

    image: NDArray[np.uint8]
    objects: tuple[SceneObject, ...]
    label: int


def render(seed: int, index: int, *, size: int = 96) -> Scene:
    """Scene ``index`` ≥ 0, of class ``index % len(CLASSES)``, of the endless set ``seed`` ≥ 0, in any order; ``size`` in pixels."""
    rng, label = np.random.default_rng([seed, index]), index % len(CLASSES)
    light = np.array([math.cos(angle := rng.uniform(0, 2 * math.pi)), math.sin(angle)], np.float32)
    image = _background(rng, label, size)
    main = _sprite(rng, label, rng.uniform(0.3, 0.44) * size, light)
    offset = rng.uniform(-0.18, 0.18, 2) * size
    whole = (np.asarray(main.alpha) > 127).sum()
    while (cover := main.cover(size / 2 + offset, size)).sum() < (MAIN_VISIBLE + 0.1) * whole:
        offset *= 0.8
    layers = [(main, size / 2 + offset)]
    for _ in range(rng.integers(3)):
        other = _sprite(rng, int(rng.integers(len(CLASSES))), rng.uniform(0.1, 0.17) * size, light)
        centre = rng.uniform(0.05, 0.95, 2) * size
        left = cover & ~other.cover(centre, size)
        in_front = rng.random() < 0.5 and left.sum() > MAIN_VISIBLE * whole
        cover = left if in_front else cover
        layers.insert(len(layers) if in_front else 0, (other, centre))
    for sprite, centre in layers:
        image.paste((12, 12, 20), sprite.corner(centre - 0.05 * size * light), sprite.shadow)
        image.paste(sprite.colour, sprite.corner(centre), sprite.alpha)
    objects, free = list[SceneObject](), np.ones((size, size), np.bool_)
    for sprite, centre in reversed(layers):
        mask = sprite.cover(centre, size) & free
        free &= ~mask
        if (box := Image.fromarray(mask).getbbox()) and mask.sum() >= TINY * size**2:
            placed = SceneObject(
                sprite.label, (box[0], box[1], box[2] - box[0], box[3] - box[1]), mask
            )
            objects.insert(0 if sprite is main else len(objects), placed)
    across = np.linspace(-1, 1, size, dtype=np.float32)
    lit = (
        np.asarray(image) * (1 + 0.18 * (light[0] * across + light[1] * across[:, None]))[..., None]
    )
    grain = rng.uniform(1, 5) * rng.standard_normal((size, size, 1), np.float32)
    return Scene((lit + grain).clip(0, 255).astype(np.uint8), tuple(objects), label)


def write(dest: str | Path, *, count: int, seed: int = 0, size: int = 96, start: int = 0) -> None:
    """Write scenes as ``dest/images/<class>/<index>.jpg`` and COCO's ``dest/annotations.json``, or ``ShardError`` if it is there."""
    if Path(dest).exists():
        raise ShardError(
            f"wanted a new folder for scenes, got {dest}, which is there; remove it or choose another name"
        )
    info = {
        "description": "procedural images, not photographs",
        "version": "1",
        "seed": seed,
        "size": size,
        "count": count,
        "start": start,
    }
    categories, images, annotations = (
        [{"id": n, "name": name} for n, name in enumerate(CLASSES, 1)],
        list[Any](),
        list[Any](),
    )
    with (
        storage.writing_directory(dest) as stage,
        progress("rendering procedural scenes", count) as advance,
    ):
        for name in CLASSES:
            (stage / "images" / name).mkdir(parents=True)
        for index in range(start, start + count):
            scene = render(seed, index, size=size)
            name = f"{CLASSES[scene.label]}/{index:06d}.jpg"
            Image.fromarray(scene.image).save(stage / "images" / name, quality=92)
            images.append({"id": index, "file_name": name, "width": size, "height": size})
            for label, box, mask in scene.objects:
                seen = {"bbox": box, "area": int(mask.sum()), "segmentation": _rle(mask)}
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": index,
                        "category_id": label + 1,
                        "iscrowd": 0,
                    }
                    | seen
                )
            advance(1, "")
        coco = {
            "info": info,
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        (stage / "annotations.json").write_text(json.dumps(coco, sort_keys=True))


def _rle(mask: NDArray[np.bool_]) -> dict[str, list[int]]:
    # Run lengths down the columns, zeros first: a mask that begins with a one begins with an empty run.
    edges = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=False))
    return {
        "size": list(mask.shape),
        "counts": np.diff(edges, prepend=0, append=mask.size).tolist(),
    }


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


class _Sprite(NamedTuple):
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


def _sprite(rng: np.random.Generator, label: int, radius: float, light: Plane) -> _Sprite:
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
    return _Sprite(
        label,
        Image.fromarray(colour),
        alpha,
        Image.fromarray((rng.uniform(60, 150) * soft).astype(np.uint8)),
    )


def _background(rng: np.random.Generator, label: int, size: int) -> Image.Image:
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
