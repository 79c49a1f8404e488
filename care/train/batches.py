"""Batches of views: pure functions of (seed, step), whatever workers, processes or restarts."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple
import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
import shards
from care.encoded import IMAGE_AXES
from care.train import ranks
from care.train.loading import worker_count
from care.train.photometrics import apply_photometrics, crop, cut_patches
from care.train.views import PATCHES, VIEWS, View
from shards.image_size import ImageSize, sides

# of b images: crops, or patches of crops
ViewPixels = Float[Tensor, "b _ _ _"] | Float[Tensor, "b 9 _ _ _"]


class Batch(tuple[Tensor, ...]):
    """The views of some images: ``x1, x2 = batch`` where there are two.

    Attributes:
        samples: numbers of the images in the set [b].
    """

    samples: Tensor

    def __new__(cls, views: Iterable[ViewPixels], samples: Int[Tensor, " b"]) -> "Batch":
        """Put views of the same images together."""
        batch = super().__new__(cls, views)
        batch.samples = samples
        return batch

    def __getnewargs__(self) -> tuple[tuple[Tensor, ...], Tensor]:
        return tuple(self), self.samples


class Crops(NamedTuple):
    """The views of one image before their colours are changed.

    Attributes:
        pixels: a crop [c, h, w] for each view, or nine patches of one.
        colours: ``ViewParameters.colour`` of each view.
        operations: ``ViewParameters.operations`` of each view.
        sample: number of the image.
    """

    pixels: tuple[UInt8[np.ndarray, "... c h w"], ...]
    colours: Float32[np.ndarray, "v 11"]
    operations: tuple[Float32[np.ndarray, "n 2"], ...]
    sample: int


class CroppedViews(Dataset[Crops]):
    """The crops of some views of the image at (epoch, sample).

    Args:
        data: an open shard set.
        size: of the crops, pixels, of views that have none of their own.
        seed: of the views.
        views: their distributions.
    """

    def __init__(
        self,
        data: shards.ShardSet,
        size: ImageSize,
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
        pixels = []
        colours = []
        operations = []
        for number, view in enumerate(self.views):
            parameters = view.draw(self.seed, epoch, sample, number)
            seen = crop(image, parameters, view.crop_size(self.size))
            if view.patch is not None:
                seen = cut_patches(seen, parameters, view.patch)
            pixels.append(seen)
            colours.append(parameters.colour)
            operations.append(parameters.operations)
        return Crops(tuple(pixels), np.stack(colours), tuple(operations), sample)


def batches(  # noqa: PLR0913 (keywords; one of the public verbs)
    data: shards.ShardSet,
    *,
    size: ImageSize,
    batch_size: int,
    steps: int,
    seed: int = 0,
    start: int = 0,
    workers: int | None = None,
    views: Sequence[View] = VIEWS,
    device: torch.device | str = "cpu",
    parts: int = 1,
) -> Iterator[tuple[int, Batch]]:
    """Yield the views of a batch of images for each step from ``start`` to ``steps`` − 1.

    Each image is decoded once and all crops are cut from it; colours are changed in whole batches
    on the device. Of several processes each gets its slice of every batch.

    Args:
        data: an open shard set; labels are not read.
        size: of a view, pixels, a side or a text such as 96x192, where it has none of its own.
        batch_size: images a step, on all processes together; an epoch leaves its last, incomplete
            batch out.
        steps: steps of the whole run.
        seed: fixes the order and every view.
        start: first step, of a run that continues.
        workers: processes that decode and crop beside this one, by default as many as are best
            here; the batches are the same for any number.
        views: distribution of each view, by default of the paper's two.
        device: where the colours are changed, and where the views are.
        parts: into which a process cuts what it gets; each part is then of the same images of the
            batch however many processes there are.

    Yields:
        The step and the views, ``(x1, x2)`` of two, normalised by ImageNet's mean and deviation; a
        view [b, 3, h, w], patches [b, 9, 3, h, w]. ``samples`` of them are the images' numbers.

    Raises:
        shards.ShardError: There are fewer images than a batch, or one is damaged.
    """
    device = torch.device(device)
    batch_bytes = batch_size // ranks.world() * bytes_of_views(views, size)
    workers = worker_count(workers, device, batches=steps - start, batch_bytes=batch_bytes)
    examples = load_examples(
        CroppedViews(data, size, seed, tuple(views)),
        _epochs_and_samples(data, range(start, steps), batch_size, seed, parts),
        workers,
        pin_memory=device.type == "cuda",
    )
    for step, (pixels, colours, operations, samples) in enumerate(examples, start):
        # all views first: their copies go on while the first is coloured
        moved = [view.to(device, non_blocking=True) for view in pixels]
        coloured = [
            _coloured(view, colours[:, number], operations[number])
            for number, view in enumerate(moved)
        ]
        yield step, Batch(coloured, samples.to(device, non_blocking=True))


def bytes_of_views(views: Sequence[View], size: ImageSize) -> int:
    """How much the views of one image take before their colours are changed.

    Args:
        views: their distributions.
        size: of those that have none of their own, pixels.
    """
    pixels = 0
    for view in views:
        count = 1 if view.patch is None else PATCHES
        pixels += count * sides(view.seen_size(size)).pixels
    return 3 * pixels


def noise_views(
    views: Sequence[View],
    images: int,
    size: ImageSize,
    *,
    bands: int = 3,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """Noise of the shapes of a batch's views, to measure by how fast a network is.

    Args:
        views: their distributions.
        images: of the batch.
        size: of those that have none of their own, pixels.
        bands: of the images.
        dtype: number format.
    """
    pixels = []
    for view in views:
        height, width = sides(view.seen_size(size))
        if view.patch is None:
            crops = torch.randn(images, bands, height, width, dtype=dtype)
            pixels.append(crops.contiguous(memory_format=torch.channels_last))
        else:
            pixels.append(torch.randn(images, PATCHES, bands, height, width, dtype=dtype))
    return pixels


def _coloured(
    crops: UInt8[Tensor, "b ... c h w"],
    numbers: Float[Tensor, "b 11"],
    operations: Float[Tensor, "b n 2"],
) -> Float[Tensor, "b ... c h w"]:
    """Views as they are seen, those of patches each by the numbers of its view."""
    if crops.ndim == IMAGE_AXES:
        return apply_photometrics(crops, numbers, operations)
    images, patches = crops.shape[:2]
    of_patches = (part.repeat_interleave(patches, 0) for part in (numbers, operations))
    seen = apply_photometrics(crops.flatten(0, 1), *of_patches)
    return seen.reshape(images, patches, *seen.shape[1:])


def _epochs_and_samples(
    data: shards.ShardSet,
    steps: Iterable[int],
    batch_size: int,
    seed: int,
    parts: int,
) -> Iterator[list[tuple[int, int]]]:
    """What ``CroppedViews`` is asked for by this process, a list for each step."""
    for step in steps:
        batch = shards.step_ids(
            len(data), batch_size=batch_size, step=step, seed=seed, run_length=data.longest_shard
        )
        samples = batch.of_rank(ranks.rank(), ranks.world(), parts=parts)
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
