"""Features of a frozen encoder, and what every evaluation on them shares."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import shards
from care.encoders import Encoded
from care.errors import CareError
from care.train.batches import loaded
from care.train.views import normalize
from shards.progress import progress


class Features(NamedTuple):
    """Pooled features of a labelled set, on the CPU."""

    x: Float[Tensor, "n d"]
    y: Int[Tensor, " n"]
    classes: int


class Accuracy(NamedTuple):
    """Per cent of the images whose class is the first, or among the first five predictions (or all classes, where fewer)."""

    top1: float
    top5: float


class _Centres(Dataset[np.ndarray]):
    def __init__(self, data: shards.ShardSet, size: int) -> None:
        self.data, self.size = data, size

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, sample: int) -> np.ndarray:
        return np.array(centre_crop(self.data.image(sample), self.size)).transpose(2, 0, 1)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Short side to size · 256 / 224 (bilinear), then the central ``size`` × ``size`` px: the paper's test transform.

    To the pixel: torchvision's ``Resize`` truncates the long side, its ``CenterCrop`` rounds the margin.
    """
    short = round(size * 256 / 224)
    width, height = (int(short * side / min(image.size)) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


def images(
    data: shards.ShardSet, *, size: int, rows: NDArray[np.int64] | None = None, batch_size: int = 256, workers: int = 0
) -> Iterator[Float[Tensor, "b 3 size size"]]:
    """The images of ``rows``, or all, in order, centre-cropped and normalised."""
    sampler = range(len(data)) if rows is None else rows.tolist()
    loader = DataLoader(_Centres(data, size), batch_size, sampler=sampler, num_workers=workers, generator=torch.Generator())
    for crops in loaded(loader):
        yield normalize(crops.float() / 255)


@torch.no_grad()
def extract(encoder: nn.Module, data: shards.ShardSet, *, size: int, batch_size: int = 256, workers: int = 0) -> Features:
    """Features of every image of a labelled set, by the encoder in eval mode, without gradient; labels are in 0…classes − 1.

    Args:
        encoder: image → ``Encoded``; used on the device it is on, left in the mode it was in.
        data: an open shard set.
        size: side of the centre crop, pixels.
        batch_size: images a forward pass.
        workers: processes that decode beside this one.

    Raises:
        CareError: the set has images without label.
    """
    if len(data) == 0 or bool((data.labels < 0).any()):
        raise CareError(f"{data.path} has images without a class; evaluation needs a set built from class folders")
    where, training = next(encoder.parameters()), encoder.training
    encoder.eval()
    rows = []
    try:
        with progress(f"features of {data.path}", len(data)) as advance:
            for batch in images(data, size=size, batch_size=batch_size, workers=workers):
                encoded: Encoded = encoder(batch.to(where).contiguous(memory_format=torch.channels_last))
                rows.append(encoded.features.float().cpu())
                advance(len(batch), "")
    finally:
        encoder.train(training)
    return Features(torch.cat(rows), torch.from_numpy(data.labels.astype(np.int64)), len(data.classes))


def same_classes(train: shards.ShardSet, val: shards.ShardSet) -> None:
    """Refuse two sets whose labels mean different classes.

    Raises:
        CareError: naming the classes that only one of them has.
    """
    if train.classes != val.classes:
        differing = sorted(set(train.classes) ^ set(val.classes))
        raise CareError(f"{train.path} and {val.path} must have the same classes; only one of them has: {', '.join(differing[:5])}")


def accuracy(scores: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Accuracy:
    """Top-1 and top-5 of the highest scores."""
    top = scores.topk(min(5, scores.shape[1]), dim=1).indices
    hits = top == labels[:, None]
    return Accuracy(100 * float(hits[:, 0].float().mean()), 100 * float(hits.any(1).float().mean()))
