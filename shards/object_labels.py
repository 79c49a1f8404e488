"""The class of every pixel by the masks of objects, of COCO's lists and of sets built of them."""

from typing import Any
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from shards.boxes import Picture
from shards.errors import ShardError
from shards.label_files import IGNORED, Labels

BACKGROUND = 0


def label_pixels(picture: Picture) -> Labels:
    """The class of every pixel: that of its object, from 1 on, or 0 where there is none.

    Nobody knows which pixel of a crowd, or of a box without a mask, is of the object, and of
    objects of two classes that cover each other the file does not say which is in front: these
    pixels do not count.

    Args:
        picture: with its objects.

    Returns:
        [height, width], ``IGNORED`` where nothing is known.

    Raises:
        ShardError: A mask is not of the size of its picture.
    """
    width, height = picture.size
    labels = np.full((height, width), BACKGROUND, np.uint8)
    unclear = np.zeros((height, width), np.bool_)
    for number, label in enumerate(picture.labels + 1):
        mask = picture.masks[number]
        if not mask:
            unclear |= _inside(picture.boxes[number], (height, width))
            continue
        covered = object_mask(mask, (height, width), picture)
        if picture.crowd[number]:
            unclear |= covered
            continue
        is_taken = (labels[covered] != BACKGROUND) & (labels[covered] != label)
        labels[covered] = np.where(is_taken, IGNORED, label)
    labels[unclear & (labels == BACKGROUND)] = IGNORED
    return labels


def object_mask(mask: Any, shape: tuple[int, int], picture: Picture) -> NDArray[np.bool_]:
    """Where an object is.

    Args:
        mask: COCO's segmentation: polygons, or an RLE, compressed or not.
        shape: height and width of the picture.
        picture: for messages.

    Returns:
        [height, width].

    Raises:
        ShardError: An RLE is of another size.
    """
    if not isinstance(mask, dict):
        corners = [polygon[: len(polygon) // 2 * 2] for polygon in mask]
        return np.asarray(rle.decode(rle.merge(rle.frPyObjects(corners, *shape)))).astype(bool)
    if tuple(mask["size"]) != shape:
        height, width = mask["size"]
        raise ShardError(
            f"{picture.path} has a mask of {width} × {height} pixels, the picture has "
            f"{shape[1]} × {shape[0]}; correct one of them"
        )
    if isinstance(mask["counts"], list):
        mask = rle.frPyObjects(mask, *shape)
    return np.asarray(rle.decode(mask)).astype(bool)


def _inside(box: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels [height, width] that a box touches."""
    x_min, y_min = np.floor(box[:2]).astype(int)
    x_max, y_max = np.ceil(box[2:]).astype(int)
    pixels = np.zeros(shape, np.bool_)
    pixels[y_min:y_max, x_min:x_max] = True
    return pixels
