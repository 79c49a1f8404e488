"""Features of a frozen encoder, and what every evaluation shares: crops with labels, scores, the record of a result."""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import shards
from care.encoders import Encoder, evaluating
from care.errors import CareError
from care.train.batches import loaded
from care.train.checkpoint import digest_of
from care.train.run import Precision, autocast
from care.train.views import View, crop, normalize
from shards import storage
from shards.options import Count, Natural, Range, Side
from shards.progress import progress

Rows = NDArray[np.int64]


class Evaluation(NamedTuple):
    """How good an encoder is at a task, judged by a protocol; the keywords in ``chosen`` are what held-out images chose."""

    task: str
    """Results of one name are comparable: with each other on the same data, with the paper's (``care.paper``) on ImageNet."""
    protocol: str
    measures: dict[str, float]  # in per cent
    chosen: dict[str, Any] = {}  # noqa: RUF012 (a NamedTuple's default is never changed)


class Features(NamedTuple):
    """Pooled features of a labelled set, on the CPU."""

    x: Float[Tensor, "n d"]
    y: Int[Tensor, " n"]
    classes: int


class Accuracy(NamedTuple):
    """Per cent of the images whose class is the first, or among the first five predictions (or all classes, where fewer)."""

    top1: float
    top5: float


class _Crops(Dataset[tuple[np.ndarray, int, int]]):
    def __init__(self, data: shards.ShardSet, size: int, seed: int = 0, view: View | None = None) -> None:
        self.data, self.size, self.seed, self.view = data, size, seed, view

    def __getitem__(self, at: tuple[int, int]) -> tuple[np.ndarray, int, int]:
        (epoch, row), image = at, self.data.image(at[1])
        if self.view:
            pixels = crop(np.array(image), self.view.draw(self.seed, epoch, row, 0), self.size).copy()  # Pillow's memory is read only
        else:
            pixels = np.array(centre_crop(image, self.size)).transpose(2, 0, 1)
        return pixels, int(self.data.labels[row]), row

    def batches(self, sampler: Iterable[list[tuple[int, int]]], workers: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        loader = DataLoader(self, batch_sampler=sampler, num_workers=workers, generator=torch.Generator())
        return ((normalize(pixels.float() / 255), labels, rows) for pixels, labels, rows in loaded(loader))


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Short side to size · 256 / 224 (bilinear), then the central ``size`` × ``size`` px: the paper's test transform."""
    short = round(size * 256 / 224)  # as in torchvision, the long side is truncated and the margin rounded
    width, height = (int(short * side / min(image.size)) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


def centres(data: shards.ShardSet, batches: Iterable[list[int]], *, size: int, workers: int = 0) -> Iterator[Float[Tensor, "b 3 h w"]]:
    """Batches of images by number, centre-cropped and normalised."""
    sampler = ([(0, row) for row in batch] for batch in batches)
    return (x for x, _, _ in _Crops(data, size).batches(sampler, workers))


def crops(
    data: shards.ShardSet, rows: Rows, *, size: int, batch_size: int, steps: int, start: int, seed: int, min_scale: float, workers: int
) -> Iterator[tuple[Float[Tensor, "b 3 size size"], Int[Tensor, " b"], Int[Tensor, " b"]]]:
    """Random crops and flips of some ``rows`` of a set for the steps ``start`` … ``steps`` − 1, normalised; their labels; their rows."""
    view = View(scale=(min_scale, 1.0), jitter_p=0, blur_p=0, gray_p=0)
    order = (shards.step_ids(len(rows), batch_size=batch_size, step=step, seed=seed) for step in range(start, steps))
    sampler = ([(epoch, int(row)) for row in rows[ids]] for epoch, ids in order)
    return _Crops(data, size, seed, view).batches(sampler, workers)


def pooled(
    encoder: Encoder, data: shards.ShardSet, batches: Iterable[list[int]], *, size: int, workers: int = 0, precision: Precision = "fp32"
) -> Iterator[Float[Tensor, "b d"]]:  # fmt: skip
    """Float32 features of centre crops, by batches of their numbers, on the encoder's device, without gradient."""
    where = next(encoder.parameters()).device
    for batch in centres(data, batches, size=size, workers=workers):
        with torch.no_grad(), autocast(where, precision):
            features = encoder(batch.to(where).contiguous(memory_format=torch.channels_last)).features
        yield features.float()


def extract(
    encoder: Encoder, data: shards.ShardSet, *, size: int, batch_size: int = 256, workers: int = 0, precision: Precision = "fp32",
    cache: str | Path | None = None, only: Iterable[int] | None = None,
) -> Features:  # fmt: skip
    """Features of the centre crop, ``size`` px, of every image of a labelled set, by the encoder in eval mode, without gradient.

    Those of a shard are a pure function of encoder, shard, size and precision: with a ``cache``, a directory or URL that machines share,
    with a file for each shard named by their digests, each may extract ``only`` the shards of some numbers, and a last call finds them all.
    Images without label are a ``CareError``.
    """
    if len(data) == 0 or bool((data.labels < 0).any()):
        raise CareError(f"{data.path} has images without a class; evaluation needs a set built from class folders")
    starts, numbers = data.index.starts, [*(range(len(data.index.shards)) if only is None else only)]
    folder = storage.locate(cache) / storage.digest([digest_of(encoder), data.digest, size, precision]) if cache else None
    kept = storage.listing(folder) if folder else {}
    parts = dict[int, Tensor]()
    for n in numbers:
        with suppress(SafetensorError):  # what a damaged file had is extracted again
            if folder and f"{n}.safetensors" in kept:
                parts[n] = load(storage.read_bytes(folder / f"{n}.safetensors"))["x"]
    left = {n: range(starts[n], starts[n + 1]) for n in numbers if n not in parts and starts[n + 1] > starts[n]}
    batches = [[*rows[at : at + batch_size]] for rows in left.values() for at in range(0, len(rows), batch_size)]
    with progress(f"features of {data.path}", sum(map(len, left.values()))) as advance, evaluating(encoder):
        stream = pooled(encoder, data, batches, size=size, workers=workers, precision=precision)
        for number, rows in left.items():
            found = list[Tensor]()
            for x in itertools.islice(stream, -(-len(rows) // batch_size)):
                found.append(x.cpu())
                advance(len(x), "")
            parts[number] = torch.cat(found)
            if folder:
                storage.write_bytes(folder / f"{number}.safetensors", save({"x": parts[number]}))
    x = torch.cat([torch.empty(0, encoder.features), *(parts[n] for n in numbers if n in parts)])  # a shard may be empty
    ids = [row for n in numbers for row in range(starts[n], starts[n + 1])]
    return Features(x, torch.from_numpy(data.labels[ids].astype(np.int64)), len(data.classes))


def same_classes(train: shards.ShardSet, val: shards.ShardSet) -> None:
    """Refuse two sets whose labels mean different classes by a ``CareError`` that names those that only one of them has."""
    if train.classes != val.classes:
        differing = sorted(set(train.classes) ^ set(val.classes))
        raise CareError(f"{train.path} and {val.path} must have the same classes; only one of them has: {', '.join(differing[:5])}")


def all_known(labels: Int[Tensor, " n"], classes: int) -> None:
    """Refuse labels that are no class by a ``CareError`` with their range."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise CareError(f"wanted labels from 0 to {classes - 1}, got some from {int(labels.min())} to {int(labels.max())}")


def accuracy(scores: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Accuracy:
    """Top-1 and top-5 of the highest scores; a label that is no class is a ``CareError``."""
    all_known(labels, scores.shape[1])
    hits = scores.topk(min(5, scores.shape[1]), dim=1).indices == labels[:, None]
    return Accuracy(100 * float(hits[:, 0].float().mean()), 100 * float(hits.any(1).float().mean()))


def knn(
    encoder: Encoder, train: shards.ShardSet, val: shards.ShardSet, *, size: Side | None = None, k: Count = 20,
    temperature: Annotated[float, Range(1e-3)] = 0.07, precision: Precision = "fp32", workers: Natural = 0, cache: str | Path | None = None,
) -> Evaluation:  # fmt: skip
    """Weighted nearest neighbours on frozen features of centre crops; nothing is trained or chosen.

    Args:
        encoder: used on the device it is on.
        train: set whose labels vote.
        val: set to classify; other classes, or images without one, are a ``CareError``.
        size: side of the crops, pixels; by default that of the encoder's training.
        k: neighbours; DINO's protocol has 20, instance discrimination's 200.
        temperature: of the votes' weights; DINO's is 0.07, instance discrimination's 0.1.
        precision: of the encoder's arithmetic.
        workers: processes that decode images.
        cache: see ``extract``.
    """
    same_classes(train, val)
    size = size or encoder.size
    known, asked = (extract(encoder, data, size=size, workers=workers, precision=precision, cache=cache) for data in (train, val))
    protocol = f"weighted nearest neighbours on frozen features (k {k}, temperature {temperature:g}), centre crops of {size} px"
    tops = weighted_knn(known, asked, k=k, temperature=temperature)
    return Evaluation("kNN", f"{protocol}; nothing is trained or chosen", tops._asdict())


def weighted_knn(train: Features, val: Features, *, k: int = 20, temperature: float = 0.07) -> Accuracy:
    """The ``k`` training images (or all) of highest cosine vote with weight exp(cosine / temperature) (Wu et al. 2018)."""
    keys, scores = F.normalize(train.x, dim=1), list[Tensor]()
    for queries in torch.split(F.normalize(val.x, dim=1), 1024):
        cosine, nearest = (queries @ keys.T).topk(min(k, len(keys)), dim=1)
        votes = torch.zeros(len(queries), train.classes)
        scores.append(votes.scatter_add_(1, train.y[nearest], ((cosine - 1) / temperature).exp()))
    return accuracy(torch.cat(scores), val.y)
