"""What a trained detector finds in every picture."""

import math
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any
import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as rle
from torch import Tensor, nn
from torch.nn import functional as F
from care.evaluate.average_precision import Detections
from care.evaluate.pictures import Examples, View
from care.train import ranks
from care.train.batches import load_examples
from care.train.loading import worker_count
from care.train.precision import seeded
from shards.boxes import BoxSet
from shards.terminal import progress

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


def average_statistics(model: nn.Module, batches: Iterable[Batch], images: int, seed: int) -> None:
    """Make the running statistics of the batch norms the mean of those of the training's first batches, of so many ``images``."""
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.reset_running_stats()
            layer.momentum = None  # all batches count alike
    with (
        progress("averaging statistics", images)
        if ranks.rank() == 0
        else nullcontext(lambda *_: None) as advance
    ):
        for step, batch in enumerate(batches):
            with seeded(seed, step, batch[0][0].device):
                model(*batch)
            advance(len(batch[0]) * ranks.world(), "")


def detections(
    model: nn.Module, data: BoxSet, size: int, workers: int | None = None
) -> list[Detections]:
    """What a detector in eval mode finds in every picture, one at a time, each process in its part of them; all return all."""
    where, own = (
        next(model.parameters()).device,
        range(ranks.rank(), len(data.pictures), ranks.world()),
    )
    workers = worker_count(workers, where, batches=len(own), batch_bytes=2 * 3 * size**2)
    examples, found = (
        load_examples(
            Examples(data, size), [[View(n, size)] for n in own], workers, collate_fn=list
        ),
        list[Detections](),
    )
    with (
        progress(f"detecting in {data.path}", len(data.pictures))
        if ranks.rank() == 0
        else nullcontext(lambda *_: None) as advance
    ):
        for number, ((image, _),) in zip(own, examples, strict=True):
            (output,) = model([image.to(where)])
            boxes, scores, labels = (
                output[name].float().cpu().numpy() for name in ("boxes", "scores", "labels")
            )
            boxes *= np.tile(
                np.divide(data.pictures[number].size, image.shape[:0:-1], dtype=np.float32), 2
            )
            masks = [
                pasted(of, box, data.pictures[number].size)
                for of, box in zip(output.get("masks", ()), boxes, strict=False)
            ]
            found.append(
                Detections(
                    boxes, scores, labels.astype(np.int64) - 1, masks if "masks" in output else None
                )
            )
            advance(min(ranks.world(), len(data.pictures) - number), "")
    if ranks.world() > 1:
        parts: list[Any] = [None] * ranks.world()
        torch.distributed.all_gather_object(parts, found)
        found = [
            parts[number % ranks.world()][number // ranks.world()]
            for number in range(len(data.pictures))
        ]
    return found


def pasted(mask: Tensor, box: NDArray[np.float32], size: tuple[int, int]) -> dict[str, Any]:
    """A mask of probabilities [m, m] inside a box, interpolated at the centres of an image's pixels: the RLE of those of half and more."""
    left, top, right, bottom = box.tolist()
    across, down = slice(int(left), math.ceil(right)), slice(int(top), math.ceil(bottom))
    x, y = (
        torch.arange(side, device=mask.device)[part] + 0.5
        for side, part in zip(size, (across, down), strict=True)
    )
    grid = torch.meshgrid(
        (x - left) / (right - left) * 2 - 1, (y - top) / (bottom - top) * 2 - 1, indexing="xy"
    )
    canvas = np.zeros(size[::-1], np.uint8, order="F")
    canvas[down, across] = (
        (
            F.grid_sample(mask[None, None], torch.stack(grid, -1)[None], align_corners=False)[0, 0]
            >= 0.5
        )
        .cpu()
        .numpy()
    )
    return dict(rle.encode(canvas))
