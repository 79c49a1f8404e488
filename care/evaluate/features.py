"""Features of a frozen encoder, extracted once and kept by shard."""

from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple
import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
import shards
from care.encoded import evaluating
from care.encoders import Encoder
from care.errors import CareError
from care.evaluate.images import centres
from care.train import ranks
from care.train.loading import worker_count
from care.train.precision import Precision, autocast
from care.train.weights import digest_of
from shards import storage
from shards.terminal import progress


class Features(NamedTuple):
    """Pooled features of a labelled set, on the CPU."""

    x: Float[Tensor, "n d"]
    y: Int[Tensor, " n"]
    classes: int


def frozen(
    encoder: Encoder, images: Float[Tensor, "b 3 h w"], precision: Precision
) -> Float[Tensor, "b d"]:
    """Float32 features of normalised images, on the encoder's device, without gradient."""
    where = next(encoder.parameters()).device
    with torch.no_grad(), autocast(where, precision):
        features: Tensor = encoder(
            images.to(where).contiguous(memory_format=torch.channels_last)
        ).features
    return features.float()


def extract(
    encoder: Encoder,
    data: shards.ShardSet,
    *,
    size: int,
    batch_size: int = 256,
    workers: int | None = None,
    precision: Precision = "fp32",
    cache: str | Path | None = None,
    only: Iterable[int] | None = None,
) -> Features:
    """Features of the centre crop, ``size`` px, of every image of a labelled set, by the encoder in eval mode, without gradient.

    Those of a shard are a pure function of encoder, shard, size and precision: with a ``cache``, a directory or URL that machines share,
    each may extract ``only`` the shards of some numbers, and a last call finds them all. Images without label are a ``CareError``.
    """
    if len(data) == 0 or bool((data.labels < 0).any()):
        raise CareError(
            f"{data.path} has images without a class; evaluation needs a set built from class folders"
        )
    starts, numbers = (
        data.index.starts,
        [*(range(len(data.index.shards)) if only is None else only)],
    )
    folder = (
        storage.locate(cache) / storage.digest([digest_of(encoder), data.digest, size, precision])
        if cache
        else None
    )
    parts = dict[int, Tensor]()
    for n in numbers if folder else ():
        with suppress(
            FileNotFoundError, NotADirectoryError, SafetensorError
        ):  # what a damaged file had is extracted again
            parts[n] = load(storage.read_bytes(f"{folder}/{n}.safetensors"))["x"]
    left = {
        n: range(starts[n], starts[n + 1])
        for n in numbers
        if n not in parts and starts[n + 1] > starts[n]
    }
    batches = [
        [*rows[at : at + batch_size]]
        for rows in left.values()
        for at in range(0, len(rows), batch_size)
    ]
    ranks.limit_threads()
    where, batch_bytes = next(encoder.parameters()).device, batch_size * 3 * size**2
    workers = worker_count(workers, where, batches=len(batches), batch_bytes=batch_bytes)
    with (
        progress(f"features of {data.path}", sum(map(len, left.values()))) as advance,
        evaluating(encoder),
    ):
        stream = centres(data, batches, size=size, workers=workers)
        for number, rows in left.items():
            found = list[Tensor]()
            for images in islice(stream, -(-len(rows) // batch_size)):
                found.append(frozen(encoder, images, precision).cpu())
                advance(len(images), "")
            parts[number] = torch.cat(found)
            if folder:
                storage.write_bytes(folder / f"{number}.safetensors", save({"x": parts[number]}))
    x = torch.cat(
        [torch.empty(0, encoder.features), *(parts[n] for n in numbers if n in parts)]
    )  # a shard may be empty
    ids = [row for n in numbers for row in range(starts[n], starts[n + 1])]
    return Features(x, torch.from_numpy(data.labels[ids].astype(np.int64)), len(data.classes))
