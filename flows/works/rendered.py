"""Procedural scenes that a work judges encoders on, rendered anew: the masks are known."""

from typing import NamedTuple
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shards import scenes


class Rendered(NamedTuple):
    """Scenes, each with its objects.

    Attributes:
        images: of the scenes.
        masks: by scene those of its objects, [objects, height, width].
    """

    images: list[Image.Image]
    masks: list[NDArray[np.bool_]]


def render_scenes(seed: int, start: int, count: int) -> Rendered:
    """Render scenes that follow each other.

    Args:
        seed: of the endless set of scenes.
        start: number of the first one.
        count: how many.
    """
    rendered = [scenes.render(seed, start + number) for number in range(count)]
    images = [Image.fromarray(scene.image) for scene in rendered]
    masks = [np.stack([item.mask for item in scene.objects]) for scene in rendered]
    return Rendered(images, masks)
