"""Batches of two views: pure functions of (seed, step), whatever the workers and processes."""

from collections.abc import Iterable, Iterator
from typing import Any
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
import shards
from care.train import ranks
from care.train.loading import worker_count
from care.train.photometrics import apply_photometrics, crop
from care.train.views import VIEWS, View


class CroppedViews(Dataset[tuple[np.ndarray, np.ndarray]]):
    """CroppedViews [views, 3, size, size] of the image at (epoch, sample) by some views, and the numbers by which to colour them."""

    def __init__(
        self, data: shards.ShardSet, size: int, seed: int, views: tuple[View, ...]
    ) -> None:
        self.data, self.size, self.seed, self.views = data, size, seed, views

    def __getitem__(self, at: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        epoch, sample = at
        image = np.array(
            self.data.image(sample)
        )  # a copy: torch takes no array that cannot be written
        drawn = [view.draw(self.seed, epoch, sample, n) for n, view in enumerate(self.views)]
        return np.stack([crop(image, d, self.size) for d in drawn]), np.stack(
            [d.colour for d in drawn]
        )


def batches(
    data: shards.ShardSet,
    *,
    size: int,
    batch_size: int,
    steps: int,
    seed: int = 0,
    start: int = 0,
    workers: int | None = None,
    views: tuple[View, View] = VIEWS,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    """Yield (step, (x1, x2)) for the steps ``start`` … ``steps`` − 1, both views [batch_size, 3, size, size], normalised.

    Of several processes each gets its slice of them. ``workers``, by default as many as are best here, cut both crops
    from one decoded image, ``device`` colours whole batches.
    ``seed`` fixes order and views; an epoch leaves its last, incomplete batch out. Fewer images, or a damaged one: ``shards.ShardError``.
    """
    of_steps = (
        shards.step_ids(
            len(data), batch_size=batch_size, step=n, seed=seed, run_length=data.longest_shard
        )
        for n in range(start, steps)
    )
    ids = (
        [(batch.epoch, int(sample)) for sample in batch.of_rank(ranks.rank(), ranks.world())]
        for batch in of_steps
    )
    where = torch.device(device)
    batch_bytes = batch_size // ranks.world() * len(views) * 3 * size**2
    workers = worker_count(workers, where, batches=steps - start, batch_bytes=batch_bytes)
    examples = load_examples(
        CroppedViews(data, size, seed, views), ids, workers, pin_memory=where.type == "cuda"
    )
    for step, (crops, numbers) in enumerate(examples, start):
        # both views at once: of one, which is not contiguous, torch makes a pageable copy, and waits
        moved = crops.to(device, non_blocking=True)
        one, two = (apply_photometrics(moved[:, n], numbers[:, n]) for n in range(2))
        yield step, (one, two)


def load_examples(
    data: Dataset[Any], batches: Iterable[Any], workers: int, **options: Any
) -> Iterator[Any]:
    """Torch's batches of examples; an error about the data is the same whether this process met it or a worker."""
    own = torch.Generator()  # or the loader would draw from torch's global one
    try:
        yield from DataLoader(
            data, batch_sampler=batches, num_workers=workers, generator=own, **options
        )
    except shards.ShardError as error:  # a worker's arrives with its traceback as the message
        raise shards.ShardError(
            str(error).strip().splitlines()[-1].removeprefix("shards.errors.ShardError: ")
        ) from None
