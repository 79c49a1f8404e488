"""Two-view batches: step k is a pure function of (seed, step), whatever the workers, the prefetching or restarts."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import shards
from care import ranks
from care.train.views import VIEWS, View, colour, crop


class _Crops(Dataset[tuple[np.ndarray, np.ndarray]]):
    def __init__(self, data: shards.ShardSet, size: int, seed: int, views: tuple[View, View]) -> None:
        self.data, self.size, self.seed, self.views = data, size, seed, views

    def __getitem__(self, at: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        epoch, sample = at
        image = np.array(self.data.image(sample))  # a copy: torch takes no array that cannot be written
        drawn = [view.draw(self.seed, epoch, sample, n) for n, view in enumerate(self.views)]
        return np.stack([crop(image, d, self.size) for d in drawn]), np.stack([d.colour for d in drawn])


def batches(
    data: shards.ShardSet, *, size: int, batch_size: int, steps: int, seed: int = 0, start: int = 0, views: tuple[View, View] = VIEWS,
    workers: int = 0, device: torch.device | str = "cpu",
) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:  # fmt: skip
    """Yield (step, (x1, x2)) for the steps ``start`` … ``steps`` − 1, both views [batch_size, 3, size, size], normalised.

    Of several processes each gets its slice, [batch_size / world, …]. Both crops are cut from one decoded image, by ``workers``, and
    coloured in batches on ``device``. The order and every view are fixed by ``seed``; the incomplete last batch of an epoch is
    dropped. Fewer images than a batch, or a damaged one, are a ``shards.ShardError``.
    """
    of_steps = (shards.step_ids(len(data), batch_size=batch_size, step=n, seed=seed, run=data.run) for n in range(start, steps))
    ids = ([(batch.epoch, int(sample)) for sample in batch.of_rank(ranks.rank(), ranks.world())] for batch in of_steps)
    loader = DataLoader(
        _Crops(data, size, seed, views), batch_sampler=ids, num_workers=workers,
        pin_memory=torch.device(device).type == "cuda", generator=torch.Generator(),  # or the loader would draw from torch's global one
    )  # fmt: skip
    for step, (crops, numbers) in enumerate(loaded(loader), start):
        one, two = (colour(crops[:, n].to(device, non_blocking=True), numbers[:, n]) for n in range(2))
        yield step, (one, two)


def loaded(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's batches; an error about the data is the same whether this process met it or a worker."""
    try:
        yield from loader
    except shards.ShardError as error:  # a worker's arrives with its traceback as the message
        raise shards.ShardError(str(error).strip().splitlines()[-1].removeprefix("shards.errors.ShardError: ")) from None
