"""Procedural scenes: the data where no image folder is at hand, with a class, boxes and masks.

A scene has one main object, up to two smaller ones, and a cluttered background. As in natural
categories, silhouette and texture tell an object's class for sure, its colour and its surroundings
only tend to; light, pose and scale are drawn independently of it.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shards import storage
from shards.errors import ShardError
from shards.progress import progress
from shards.scene_shapes import CLASSES, Plane, Sprite, draw_background, draw_sprite

__all__ = ["CLASSES", "MAIN_VISIBLE", "TINY", "Scene", "SceneObject", "render", "write"]

# least share of the main object's whole silhouette that is seen, whatever the frame and other
# objects hide
MAIN_VISIBLE = 0.6
# an object that is seen on less than this share of the image is not recorded
TINY = 0.004
_SHADOW_COLOUR = (12, 12, 20)


class SceneObject(NamedTuple):
    """What is seen of one object.

    Attributes:
        label: its class, a position in ``CLASSES``.
        box: x, y, width and height of the mask in pixels.
        mask: [H, W], true where it is in front.
    """

    label: int
    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]


class Scene(NamedTuple):
    """One image with its truth.

    Attributes:
        image: [H, W, 3] RGB.
        objects: its objects with disjoint masks, the main one first.
        label: the class of the main object.
    """

    image: NDArray[np.uint8]
    objects: tuple[SceneObject, ...]
    label: int


class _Layer(NamedTuple):
    """A sprite and where its centre is, (x, y) in pixels."""

    sprite: Sprite
    centre: Plane


def render(seed: int, index: int, *, size: int = 96) -> Scene:
    """Render one scene, a pure function of its arguments.

    Args:
        seed: seed of the endless set of scenes, ≥ 0.
        index: number of the scene, ≥ 0; its class is ``index % len(CLASSES)``.
        size: height and width in pixels.

    Returns:
        The scene.
    """
    # what is drawn of this generator, and in which order, decides every pixel
    rng = np.random.default_rng([seed, index])
    label = index % len(CLASSES)
    angle = rng.uniform(0, 2 * math.pi)
    light = np.array([math.cos(angle), math.sin(angle)], np.float32)
    image = draw_background(rng, label, size)
    main = draw_sprite(rng, label, rng.uniform(0.3, 0.44) * size, light)
    layers = _compose(rng, main, light, size)
    for sprite, centre in layers:
        shadow_corner = sprite.corner(centre - 0.05 * size * light)
        image.paste(_SHADOW_COLOUR, shadow_corner, sprite.shadow)
        image.paste(sprite.colour, sprite.corner(centre), sprite.alpha)
    objects = _seen_objects(layers, main, size)
    return Scene(_light(rng, image, light), objects, label)


def write(dest: str | Path, *, count: int, seed: int = 0, size: int = 96, start: int = 0) -> None:
    """Write scenes as an image folder with COCO annotations.

    The images are ``dest/images/<class>/<index>.jpg``; the file names in ``dest/annotations.json``
    are relative to ``dest/images``, its masks uncompressed RLE. The folder appears whole or not at
    all.

    Args:
        dest: a new folder.
        count: how many scenes.
        seed: seed of the scenes.
        size: height and width in pixels.
        start: number of the first scene.

    Raises:
        ShardError: ``dest`` is there, or the disk refuses.
    """
    if Path(dest).exists():
        raise ShardError(
            f"wanted a new folder for scenes, got {dest}, which is there; "
            "remove it or choose another name"
        )
    images = list[dict[str, Any]]()
    annotations = list[dict[str, Any]]()
    with (
        storage.writing_directory(dest) as stage,
        progress("rendering procedural scenes", count) as advance,
    ):
        for name in CLASSES:
            (stage / "images" / name).mkdir(parents=True)
        for index in range(start, start + count):
            scene = render(seed, index, size=size)
            file_name = f"{CLASSES[scene.label]}/{index:06d}.jpg"
            Image.fromarray(scene.image).save(stage / "images" / file_name, quality=92)
            images.append({"id": index, "file_name": file_name, "width": size, "height": size})
            for scene_object in scene.objects:
                annotations.append(_annotation(scene_object, len(annotations) + 1, index))
            advance(1, "")
        document = {
            "info": {
                "description": "procedural images, not photographs",
                "version": "1",
                "seed": seed,
                "size": size,
                "count": count,
                "start": start,
            },
            "images": images,
            "annotations": annotations,
            "categories": [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)],
        }
        (stage / "annotations.json").write_text(json.dumps(document, sort_keys=True))


def _compose(rng: np.random.Generator, main: Sprite, light: Plane, size: int) -> list[_Layer]:
    """Place the main object and up to two smaller ones, from the back to the front.

    Args:
        rng: what is drawn from.
        main: the main object; at least ``MAIN_VISIBLE`` of it stays visible.
        light: the direction of the light [2].
        size: height and width of the image in pixels.
    """
    offset = rng.uniform(-0.18, 0.18, 2) * size
    area = (np.asarray(main.alpha) > 127).sum()
    visible = main.cover(size / 2 + offset, size)
    while visible.sum() < (MAIN_VISIBLE + 0.1) * area:
        offset *= 0.8
        visible = main.cover(size / 2 + offset, size)
    layers = [_Layer(main, size / 2 + offset)]
    for _ in range(rng.integers(3)):
        label = int(rng.integers(len(CLASSES)))
        sprite = draw_sprite(rng, label, rng.uniform(0.1, 0.17) * size, light)
        centre = rng.uniform(0.05, 0.95, 2) * size
        still_visible = visible & ~sprite.cover(centre, size)
        in_front = rng.random() < 0.5 and still_visible.sum() > MAIN_VISIBLE * area
        if in_front:
            visible = still_visible
            layers.append(_Layer(sprite, centre))
        else:
            layers.insert(0, _Layer(sprite, centre))
    return layers


def _seen_objects(layers: list[_Layer], main: Sprite, size: int) -> tuple[SceneObject, ...]:
    """What is seen of the objects of some layers, the main one first."""
    objects = list[SceneObject]()
    free = np.ones((size, size), np.bool_)
    for sprite, centre in reversed(layers):
        mask = sprite.cover(centre, size) & free
        free &= ~mask
        corners = Image.fromarray(mask).getbbox()
        if corners is None or mask.sum() < TINY * size**2:
            continue
        x_min, y_min, x_max, y_max = corners
        box = (x_min, y_min, x_max - x_min, y_max - y_min)
        position = 0 if sprite is main else len(objects)
        objects.insert(position, SceneObject(sprite.label, box, mask))
    return tuple(objects)


def _light(rng: np.random.Generator, image: Image.Image, light: Plane) -> NDArray[np.uint8]:
    """An image [H, W, 3] in light from one side, with a camera's grain."""
    size = image.width
    across = np.linspace(-1, 1, size, dtype=np.float32)
    slope = light[0] * across + light[1] * across[:, None]
    brightness = 1 + 0.18 * slope
    lit = np.asarray(image) * brightness[..., None]
    strength = rng.uniform(1, 5)
    grain = strength * rng.standard_normal((size, size, 1), np.float32)
    pixels: NDArray[np.uint8] = (lit + grain).clip(0, 255).astype(np.uint8)
    return pixels


def _annotation(scene_object: SceneObject, number: int, image_number: int) -> dict[str, Any]:
    """One of COCO's ``annotations``."""
    return {
        "id": number,
        "image_id": image_number,
        "category_id": scene_object.label + 1,
        "iscrowd": 0,
        "bbox": scene_object.box,
        "area": int(scene_object.mask.sum()),
        "segmentation": _run_lengths(scene_object.mask),
    }


def _run_lengths(mask: NDArray[np.bool_]) -> dict[str, list[int]]:
    """A mask as COCO's uncompressed RLE: run lengths down the columns, zeros first.

    A mask that begins with a one begins with an empty run of zeros.
    """
    edges = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=False))
    lengths = np.diff(edges, prepend=0, append=mask.size)
    return {"size": list(mask.shape), "counts": lengths.tolist()}
