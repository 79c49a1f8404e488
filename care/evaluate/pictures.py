"""Pictures as a detector sees them: resized, mirrored, with boxes and masks."""

from typing import Any, NamedTuple
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle
from torch import Tensor
from torch.utils.data import Dataset
from shards.boxes import BoxSet


class View(NamedTuple):
    """A picture by number, resized to a short ``side`` in pixels, unless the longest is then too long, and perhaps mirrored."""

    number: int
    side: int
    mirrored: bool = False


def drawn(seed: int, epoch: int, number: int, sides: list[int]) -> View:
    """How a picture is shown in training: a pure function of the arguments."""
    rng = np.random.default_rng((seed, epoch, number))
    return View(number, mirrored=bool(rng.integers(2)), side=sides[rng.integers(len(sides))])


class Examples(Dataset[Any]):
    """Views of pictures as [3, h, w] in 0…1, and the boxes to learn from: ``boxes``, ``labels`` from 1 on, with ``mask`` also ``masks``."""

    def __init__(self, data: BoxSet, size: int, mask: bool = False) -> None:
        self.data, self.longest, self.mask = data, round(size * 1333 / 800), mask

    def __getitem__(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        picture = self.data.pictures[view.number]
        scale = min(view.side / min(picture.size), self.longest / max(picture.size))
        width, height = (max(round(side * scale), 1) for side in picture.size)
        factors = np.divide((width, height), picture.size)
        image = self.data.image(view.number).resize((width, height), Image.Resampling.BILINEAR)
        learned = [
            n
            for n, crowd in enumerate(picture.crowd)
            if not crowd and (picture.masks[n] or not self.mask)
        ]
        left, top, right, bottom = (picture.boxes[learned] * np.tile(factors, 2)).T
        if view.mirrored:
            image, left, right = (
                image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
                width - right,
                width - left,
            )
        boxes = torch.from_numpy(np.stack((left, top, right, bottom), 1).astype(np.float32))
        target = {"boxes": boxes, "labels": torch.from_numpy(picture.labels[learned]) + 1}
        if self.mask:
            masks = np.array(
                [raster(picture.masks[n], factors, (height, width)) for n in learned], np.uint8
            ).reshape(-1, height, width)
            target["masks"] = torch.from_numpy(masks[:, :, ::-1].copy() if view.mirrored else masks)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255, target


def raster(mask: Any, factors: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A COCO segmentation as 0 and 1 [h, w] of an image that was resized by ``factors`` to that shape: polygons are drawn there."""
    if isinstance(mask, dict):
        whole = rle.frPyObjects(mask, *mask["size"]) if isinstance(mask["counts"], list) else mask
        return np.array(
            Image.fromarray(rle.decode(whole)).resize(shape[::-1], Image.Resampling.NEAREST)
        )
    corners = [
        (np.reshape(polygon[: len(polygon) // 2 * 2], (-1, 2)) * factors).ravel().tolist()
        for polygon in mask
    ]
    return np.asarray(rle.decode(rle.merge(rle.frPyObjects(corners, *shape))))
