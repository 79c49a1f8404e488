"""Features of a frozen encoder: pooled, of centre crops, extracted once and kept by shard."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
import shards
from care.encoded import evaluating
from care.encoders import Encoder
from care.evaluate.images import ImageSet, centre_crops
from care.train import ranks
from care.train.loading import worker_count
from care.train.precision import Precision, autocast
from care.train.weights import digest_of
from shards import storage
from shards.image_size import ImageSize, sides
from shards.progress import progress


class Features(NamedTuple):
    """Pooled features of the images of a set, on the CPU.

    Attributes:
        x: features of every image, float32.
        y: their classes by number, -1 of images that have none.
        classes: how many classes the set has.
        keys: names of the images in the set [n].
    """

    x: Float[Tensor, "n d"]
    y: Int[Tensor, " n"]
    classes: int
    keys: Sequence[str] | NDArray[Any] = ()


def device_of(module: nn.Module) -> torch.device:
    """Where the parameters of a module are."""
    return next(module.parameters()).device


def frozen_features(
    encoder: Encoder,
    images: Float[Tensor, "b _ h w"],
    precision: Precision,
) -> Float[Tensor, "b d"]:
    """Features without gradient.

    Args:
        encoder: used in the mode and on the device it is in.
        images: normalised, wherever they are.
        precision: of the encoder's arithmetic.

    Returns:
        Float32, on the encoder's device.
    """
    device = device_of(encoder)
    moved = images.to(device).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), autocast(device, precision):
        features: Tensor = encoder(moved).features
    return features.float()


def extract(
    encoder: Encoder,
    data: shards.ShardSet,
    *,
    size: ImageSize,
    batch_size: int = 256,
    workers: int | None = None,
    precision: Precision = "fp32",
    cache: str | Path | None = None,
    only: Iterable[int] | None = None,
) -> Features:
    """Features of the centre crop of every image, whether or not it has a class.

    The encoder is in eval mode, without gradient, and left in the mode it was in. The features of
    a shard are a pure function of encoder, shard, size and precision: with a ``cache`` that
    machines share, each of them may extract ``only`` some shards, and a last call finds them all.

    Args:
        encoder: used on the device it is on.
        data: set of images; ``data.labelled()`` is that of those with a class.
        size: of the crops, pixels.
        batch_size: images that are encoded at once.
        workers: processes that decode images, by default what is best here.
        precision: of the encoder's arithmetic.
        cache: directory or URL where features are kept, a file for each shard, named by digests
            of what they are a function of.
        only: numbers of the shards to extract, by default all.

    Returns:
        Features, labels and names of the images of these shards, on the CPU.
    """
    rows_of_shards = _rows_of_shards(data, only)
    features = pooled_features(
        encoder,
        data,
        rows_of_shards,
        size=size,
        batch_size=batch_size,
        workers=workers,
        precision=precision,
        cache=cache,
    )
    rows = [row for rows_of_shard in rows_of_shards.values() for row in rows_of_shard]
    labels = torch.from_numpy(data.labels[rows].astype(np.int64))
    return Features(features, labels, len(data.classes), data.keys[rows])


def pooled_features(
    encoder: Encoder,
    data: ImageSet,
    parts: Mapping[int, range],
    *,
    size: ImageSize,
    batch_size: int = 256,
    workers: int | None = None,
    precision: Precision = "fp32",
    cache: str | Path | None = None,
) -> Float[Tensor, "n d"]:
    """Features of the centre crops of images, part by part.

    Args:
        encoder: as for ``extract``.
        data: the images.
        parts: their numbers by the number of the part, each of which is a file of the cache.
        size: as for ``extract``.
        batch_size: likewise.
        workers: likewise.
        precision: likewise.
        cache: likewise.

    Returns:
        Those of all parts, one after the other, float32 on the CPU.
    """
    folder = None
    if cache:
        identity = [digest_of(encoder), data.digest, size, precision]
        folder = f"{storage.locate(cache)}/{storage.digest(identity)}"
    features = {} if folder is None else _cached(folder, parts)
    missing = {number: rows for number, rows in parts.items() if rows and number not in features}
    batches = _batches(missing.values(), batch_size)
    ranks.limit_threads()
    workers = worker_count(
        workers,
        device_of(encoder),
        batches=len(batches),
        batch_bytes=batch_size * 3 * sides(size).pixels,
    )
    total = sum(len(rows) for rows in missing.values())
    with progress(f"features of {data.path}", total) as advance, evaluating(encoder):
        images = centre_crops(data, batches, size=size, workers=workers)
        for number, rows in missing.items():
            of_part = []
            for batch in islice(images, _batch_count(rows, batch_size)):
                of_part.append(frozen_features(encoder, batch, precision).cpu())
                advance(len(batch), "")
            features[number] = torch.cat(of_part)
            if folder is not None:
                storage.write_bytes(f"{folder}/{number}.safetensors", _packed(features[number]))
    # without any image there is still a width
    empty = torch.empty(0, encoder.features)
    return torch.cat([empty, *(features[number] for number in parts if number in features)])


def _rows_of_shards(data: shards.ShardSet, only: Iterable[int] | None) -> dict[int, range]:
    """Numbers of the images of the wanted shards, of which a shard may have none."""
    starts = data.index.starts
    numbers = range(len(data.index.shards)) if only is None else only
    return {number: range(starts[number], starts[number + 1]) for number in numbers}


def _cached(folder: str, numbers: Iterable[int]) -> dict[int, Tensor]:
    """Features of those shards that a folder has, but none that are not what was written."""
    features = dict[int, Tensor]()
    for number in numbers:
        with suppress(FileNotFoundError, NotADirectoryError, SafetensorError, KeyError):
            packed = storage.read_bytes(f"{folder}/{number}.safetensors")
            x = load(packed)["x"]
            if packed == _packed(x):
                features[number] = x
    return features


def _packed(x: Tensor) -> bytes:
    """A file of features with a digest of them, without which a changed bit would go unnoticed."""
    content = save({"x": x})
    return save({"x": x}, {"sha256": hashlib.sha256(content).hexdigest()})


def _batches(rows_of_shards: Iterable[range], size: int) -> list[list[int]]:
    """Rows of at most ``size`` images at once, never of two shards."""
    batches = []
    for rows in rows_of_shards:
        for first in range(0, len(rows), size):
            batches.append([*rows[first : first + size]])
    return batches


def _batch_count(rows: range, size: int) -> int:
    """How many of ``_batches`` a shard has."""
    return -(-len(rows) // size)
