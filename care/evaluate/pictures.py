"""Annotated pictures as a detector sees them: resized, perhaps mirrored, with boxes and masks.

All is a pure function of the picture and of how it is shown; nothing here knows the network.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle
from torch import Tensor
from torch.utils.data import Dataset
import shards
from care.train import ranks
from care.train.batches import load_examples
from shards.boxes import BoxSet, Picture

LONGEST = 1333 / 800  # longest side over short side at most, detectron2's MAX_SIZE_TRAIN and _TEST

Target = dict[str, Tensor]


class ResizedPicture(NamedTuple):
    """Which picture is shown, and how.

    Attributes:
        number: of the picture in its set.
        side: pixels of its short side, unless its longest would be too long.
        mirrored: whether left and right are exchanged.
    """

    number: int
    side: int
    mirrored: bool = False


class PictureBatch(NamedTuple):
    """Pictures of a step, each of a size of its own, on the device of the detector.

    Attributes:
        images: [3, h, w] in 0…1.
        targets: what to learn of each, see ``Examples``.
    """

    images: list[Tensor]
    targets: list[Target]


def draw_picture(seed: int, epoch: int, number: int, sides: list[int]) -> ResizedPicture:
    """How a picture is shown in training: a pure function of the arguments."""
    generator = np.random.default_rng((seed, epoch, number))
    mirrored = bool(generator.integers(2))
    side = sides[generator.integers(len(sides))]
    return ResizedPicture(number, side, mirrored)


class Examples(Dataset[tuple[Tensor, Target]]):
    """Pictures as [3, h, w] in 0…1 by how they are shown, and what to learn of them.

    A target has ``boxes`` [n, 4], left, top, right and bottom in pixels of the resized picture,
    and ``labels`` [n] from 1 on, with masks also ``masks`` [n, h, w] of 0 and 1. Difficult objects
    are among them; crowds, and with masks what has none, are not.

    Args:
        data: set of the pictures.
        size: pixels of the short side at test; by it the longest side is bounded.
        mask: give masks, too.
    """

    def __init__(self, data: BoxSet, size: int, mask: bool = False) -> None:
        self.data = data
        self.longest = round(size * LONGEST)
        self.mask = mask

    def __getitem__(self, shown: ResizedPicture) -> tuple[Tensor, Target]:
        picture = self.data.pictures[shown.number]
        scale = min(shown.side / min(picture.size), self.longest / max(picture.size))
        width, height = (max(round(side * scale), 1) for side in picture.size)
        factors = np.divide((width, height), picture.size)
        image = self.data.image(shown.number).resize((width, height), Image.Resampling.BILINEAR)
        objects = self._learned(picture)
        boxes = picture.boxes[objects] * np.tile(factors, 2)
        if shown.mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            boxes = _mirrored(boxes, width)
        target = {
            "boxes": torch.from_numpy(boxes.astype(np.float32)),
            "labels": torch.from_numpy(picture.labels[objects]) + 1,
        }
        if self.mask:
            shapes = [rasterise(picture.masks[n], factors, (height, width)) for n in objects]
            masks = np.array(shapes, np.uint8).reshape(-1, height, width)
            if shown.mirrored:
                masks = masks[:, :, ::-1].copy()
            target["masks"] = torch.from_numpy(masks)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return pixels.float() / 255, target

    def _learned(self, picture: Picture) -> list[int]:
        """Numbers of the objects to learn from."""
        objects = np.flatnonzero(~picture.crowd).tolist()
        if self.mask:
            objects = [number for number in objects if picture.masks[number]]
        return objects


def training_batches(
    examples: Examples,
    sides: list[int],
    *,
    batch_size: int,
    steps: range,
    seed: int,
    workers: int,
    device: torch.device,
) -> Iterator[PictureBatch]:
    """This process's slice of the batch of every step: a pure function of seed and step.

    Args:
        examples: pictures to learn from.
        sides: pixels of their short side, of which one is drawn for each picture.
        batch_size: pictures a step, on all processes together.
        steps: those that are left to do.
        seed: of the order, the sizes and the flips.
        workers: processes that decode.
        device: where the pictures are sent.
    """
    shown = (
        _draw_batch(examples.data, sides, batch_size=batch_size, step=step, seed=seed)
        for step in steps
    )
    workers = min(workers, len(steps))
    for batch in load_examples(examples, shown, workers, collate_fn=list):
        yield PictureBatch(
            images=[image.to(device) for image, _ in batch],
            targets=[_to(device, target) for _, target in batch],
        )


def _draw_batch(
    data: BoxSet,
    sides: list[int],
    *,
    batch_size: int,
    step: int,
    seed: int,
) -> list[ResizedPicture]:
    """How the pictures of this process are shown in a step."""
    ids = shards.step_ids(len(data.pictures), batch_size=batch_size, step=step, seed=seed)
    numbers = ids.of_rank(ranks.rank(), ranks.world())
    return [draw_picture(seed, ids.epoch, int(number), sides) for number in numbers]


def _to(device: torch.device, target: Target) -> Target:
    return {name: value.to(device) for name, value in target.items()}


def rasterise(
    mask: Any,
    factors: NDArray[np.float64],
    shape: tuple[int, int],
) -> NDArray[np.uint8]:
    """A mask as 0 and 1 [h, w] of an image that was resized.

    Args:
        mask: COCO's segmentation in pixels of the image before: polygons, which are drawn after
            the resizing, or an RLE, compressed or not, which is resized by its nearest pixels.
        factors: new width and height over the old ones.
        shape: new height and width.
    """
    if isinstance(mask, dict):
        if isinstance(mask["counts"], list):
            mask = rle.frPyObjects(mask, *mask["size"])
        image = Image.fromarray(rle.decode(mask))
        height, width = shape
        return np.array(image.resize((width, height), Image.Resampling.NEAREST))
    polygons = [_resized(polygon, factors) for polygon in mask]
    return np.asarray(rle.decode(rle.merge(rle.frPyObjects(polygons, *shape))))


def _mirrored(boxes: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Boxes of an image of some width whose left and right are exchanged."""
    x1, y1, x2, y2 = boxes.T
    return np.stack((width - x2, y1, width - x1, y2), 1)


def _resized(polygon: list[float], factors: NDArray[np.float64]) -> list[float]:
    """Corners x, y, x, y … of a resized image, without half a corner at the end."""
    whole_corners = len(polygon) // 2 * 2
    corners = np.reshape(polygon[:whole_corners], (-1, 2)) * factors
    resized: list[float] = corners.ravel().tolist()
    return resized
