"""What a trained detector finds: statistics made exact, then every picture at test size."""

import math
from collections.abc import Iterable
from typing import Any
import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as rle
from torch import Tensor, nn
from torch.nn import functional as F
from care.evaluate.average_precision import Detections
from care.evaluate.dense_training import lead_progress
from care.evaluate.pictures import Examples, PictureBatch, ResizedPicture
from care.train import ranks
from care.train.batches import load_examples
from care.train.loading import worker_count
from care.train.precision import seeded
from shards.boxes import BoxSet


def average_statistics(
    model: nn.Module,
    batches: Iterable[PictureBatch],
    images: int,
    seed: int,
) -> None:
    """Make the running statistics of the batch norms the mean of those of some batches.

    Running ones are of weights that have changed since (detectron2's PreciseBN).

    Args:
        model: a detector in train mode.
        batches: the first ones of the training; all count alike.
        images: in these batches, on all processes together.
        seed: of the boxes that are sampled.
    """
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.reset_running_stats()
            layer.momentum = None  # torch's way to say that all batches count alike
    with lead_progress("averaging statistics", images) as advance:
        for step, batch in enumerate(batches):
            with seeded(seed, step, batch.images[0].device):
                model(*batch)
            advance(len(batch.images) * ranks.world(), "")


def find_objects(
    model: nn.Module,
    data: BoxSet,
    size: int,
    workers: int | None = None,
) -> list[Detections]:
    """What a detector finds in every picture of a set, one at a time.

    Args:
        model: a detector in eval mode.
        data: set of the pictures.
        size: pixels of their short side.
        workers: processes that decode, by default what is best here.

    Returns:
        Detections of all pictures, in their order; of processes that are one group each looks at
        a part of them, and all return all.
    """
    device = next(model.parameters()).device
    numbers = range(ranks.rank(), len(data.pictures), ranks.world())
    workers = worker_count(workers, device, batches=len(numbers), batch_bytes=2 * 3 * size**2)
    shown = [[ResizedPicture(number, size)] for number in numbers]
    batches = load_examples(Examples(data, size), shown, workers, collate_fn=list)
    found_here = list[Detections]()
    with lead_progress(f"detecting in {data.path}", len(data.pictures)) as advance:
        for number, [(image, _)] in zip(numbers, batches, strict=True):
            [output] = model([image.to(device)])
            height, width = image.shape[1:]
            found_here.append(_in_picture(output, (width, height), data.pictures[number].size))
            advance(min(ranks.world(), len(data.pictures) - number), "")
    return _gathered(found_here, len(data.pictures))


def _in_picture(
    output: dict[str, Tensor],
    resized: tuple[int, int],
    size: tuple[int, int],
) -> Detections:
    """A detector's output for one image, in pixels of the picture.

    Args:
        output: ``boxes``, ``scores``, ``labels`` from 1 on, perhaps ``masks``.
        resized: width and height of the image.
        size: those of the picture.
    """
    boxes, scores, labels = (
        output[name].float().cpu().numpy() for name in ("boxes", "scores", "labels")
    )
    boxes *= np.tile(np.divide(size, resized, dtype=np.float32), 2)
    masks = None
    if "masks" in output:
        masks = [
            paste_mask(mask, box, size) for mask, box in zip(output["masks"], boxes, strict=True)
        ]
    return Detections(boxes, scores, labels.astype(np.int64) - 1, masks)


def _gathered(found_here: list[Detections], pictures: int) -> list[Detections]:
    """Detections of all processes, in the order of the pictures."""
    world = ranks.world()
    if world == 1:
        return found_here
    by_rank: list[Any] = [None] * world
    torch.distributed.all_gather_object(by_rank, found_here)
    return [by_rank[number % world][number // world] for number in range(pictures)]


def paste_mask(mask: Tensor, box: NDArray[np.float32], size: tuple[int, int]) -> dict[str, Any]:
    """The pixels of a picture where a mask has a probability of half or more.

    The mask is interpolated at the centres of the pixels; the box is not rounded.

    Args:
        mask: probabilities [m, m] inside the box.
        box: left, top, right, bottom in pixels of the picture.
        size: width and height of the picture.

    Returns:
        An RLE.
    """
    x1, y1, x2, y2 = box.tolist()
    width, height = size
    columns = slice(int(x1), math.ceil(x2))
    rows = slice(int(y1), math.ceil(y2))
    x = torch.arange(width, device=mask.device)[columns] + 0.5
    y = torch.arange(height, device=mask.device)[rows] + 0.5
    # grid_sample's coordinates: -1 is one border of the box, 1 the other
    grid = torch.meshgrid(
        (x - x1) / (x2 - x1) * 2 - 1,
        (y - y1) / (y2 - y1) * 2 - 1,
        indexing="xy",
    )
    points = torch.stack(grid, -1)[None]
    sampled = F.grid_sample(mask[None, None], points, align_corners=False)[0, 0]
    canvas = np.zeros((height, width), np.uint8, order="F")
    canvas[rows, columns] = (sampled >= 0.5).cpu().numpy()
    return dict(rle.encode(canvas))
