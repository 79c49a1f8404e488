"""Batches of two views: pure functions of (seed, step), whatever workers, processes or restarts."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
import shards
from care.train import ranks
from care.train.loading import worker_count
from care.train.photometrics import apply_photometrics, crop
from care.train.views import VIEWS, View

Views = tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 3 h w"]]


class Crops(NamedTuple):
    """The views of one image before their colours are changed.

    Attributes:
        pixels: RGB, a crop for each view.
        colours: ``ViewParameters.colour`` of each view.
    """

    pixels: UInt8[np.ndarray, "v 3 h w"]
    colours: Float32[np.ndarray, "v 11"]


class CroppedViews(Dataset[Crops]):
    """The crops of some views of the image at (epoch, sample).

    Args:
        data: an open shard set.
        size: side of the crops, pixels.
        seed: of the views.
        views: their distributions.
    """

    def __init__(
        self,
        data: shards.ShardSet,
        size: int,
        seed: int,
        views: tuple[View, ...],
    ) -> None:
        self.data = data
        self.size = size
        self.seed = seed
        self.views = views

    def __getitem__(self, at: tuple[int, int]) -> Crops:
        epoch, sample = at
        # a copy: torch takes no array that cannot be written
        image = np.array(self.data.image(sample))
        drawn = [view.draw(self.seed, epoch, sample, n) for n, view in enumerate(self.views)]
        pixels = np.stack([crop(image, parameters, self.size) for parameters in drawn])
        return Crops(pixels, np.stack([parameters.colour for parameters in drawn]))


def batches(  # noqa: PLR0913 (keywords; one of the public verbs)
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
) -> Iterator[tuple[int, Views]]:
    """Yield the two views of a batch of images for each step from ``start`` to ``steps`` − 1.

    Each image is decoded once and both crops are cut from it; colours are changed in whole batches
    on the device. Of several processes each gets its slice of every batch.

    Args:
        data: an open shard set; labels are not read.
        size: side of a view, pixels.
        batch_size: images a step, on all processes together; an epoch leaves its last, incomplete
            batch out.
        steps: steps of the whole run.
        seed: fixes the order and every view.
        start: first step, of a run that continues.
        workers: processes that decode and crop beside this one, by default as many as are best
            here; the batches are the same for any number.
        views: distributions of the two views.
        device: where the colours are changed, and where the views are.

    Yields:
        The step and ``(x1, x2)``, normalised by ImageNet's mean and deviation.

    Raises:
        shards.ShardError: There are fewer images than a batch, or one is damaged.
    """
    device = torch.device(device)
    batch_bytes = batch_size // ranks.world() * len(views) * 3 * size**2
    workers = worker_count(workers, device, batches=steps - start, batch_bytes=batch_bytes)
    examples = load_examples(
        CroppedViews(data, size, seed, views),
        _epochs_and_samples(data, range(start, steps), batch_size, seed),
        workers,
        pin_memory=device.type == "cuda",
    )
    for step, (pixels, colours) in enumerate(examples, start):
        # both views at once: of one, which is not contiguous, torch makes a pageable copy and waits
        moved = pixels.to(device, non_blocking=True)
        x1 = apply_photometrics(moved[:, 0], colours[:, 0])
        x2 = apply_photometrics(moved[:, 1], colours[:, 1])
        yield step, (x1, x2)


def _epochs_and_samples(
    data: shards.ShardSet,
    steps: Iterable[int],
    batch_size: int,
    seed: int,
) -> Iterator[list[tuple[int, int]]]:
    """What ``CroppedViews`` is asked for by this process, a list for each step."""
    for step in steps:
        batch = shards.step_ids(
            len(data), batch_size=batch_size, step=step, seed=seed, run_length=data.longest_shard
        )
        samples = batch.of_rank(ranks.rank(), ranks.world())
        yield [(batch.epoch, int(sample)) for sample in samples]


def load_examples(
    data: Dataset[Any],
    batches: Iterable[Any],
    workers: int,
    **options: Any,
) -> Iterator[Any]:
    """Load batches of a dataset's examples with torch's loader.

    Args:
        data: the dataset.
        batches: the keys of the examples in each batch.
        workers: processes that make them; 0: this one.
        **options: of ``torch.utils.data.DataLoader``.

    Yields:
        What the loader makes of each batch.

    Raises:
        shards.ShardError: One about the data, with the same words whether this process met it or a
            worker did.
    """
    generator = torch.Generator()  # or the loader would draw from torch's global one
    loader = DataLoader(
        data, batch_sampler=batches, num_workers=workers, generator=generator, **options
    )
    try:
        yield from loader
    except shards.ShardError as error:  # a worker's arrives with its traceback as the message
        last_line = str(error).strip().splitlines()[-1]
        message = last_line.removeprefix("shards.errors.ShardError: ")
        raise shards.ShardError(message) from None
