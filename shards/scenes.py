"""Procedural scenes, the default data: silhouette and texture tell an object's class for sure, colour and surroundings only tend to."""

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
from shards.scene_shapes import CLASSES, draw_background, draw_sprite

__all__ = ["CLASSES", "MAIN_VISIBLE", "TINY", "Scene", "SceneObject", "render", "write"]

MAIN_VISIBLE = 0.6  # least share of the main object's whole silhouette that is seen, whatever the frame and other objects hide
TINY = 0.004  # an object that is seen on less than this share of the image is not recorded


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
    image = draw_background(rng, label, size)
    main = draw_sprite(rng, label, rng.uniform(0.3, 0.44) * size, light)
    offset = rng.uniform(-0.18, 0.18, 2) * size
    whole = (np.asarray(main.alpha) > 127).sum()
    while (cover := main.cover(size / 2 + offset, size)).sum() < (MAIN_VISIBLE + 0.1) * whole:
        offset *= 0.8
    layers = [(main, size / 2 + offset)]
    for _ in range(rng.integers(3)):
        other = draw_sprite(
            rng, int(rng.integers(len(CLASSES))), rng.uniform(0.1, 0.17) * size, light
        )
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
