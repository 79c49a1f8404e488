"""Images of a labelled set as evaluations show them: centre crops, and random crops with labels."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import center_crop, resize
import shards
from care.train.batches import CroppedViews, load_examples
from care.train.photometrics import apply_photometrics, normalize
from care.train.views import View
from shards.bounds import PositiveFloat
from shards.image_size import ImageSize, Sides, sides

Rows = NDArray[np.int64]
# of views that no training sees: the pass over a set that they are drawn of
NO_EPOCH = 2**40


@dataclass(frozen=True)
class Crops:
    """How much of an image is shown, in training and at test.

    Attributes:
        size: of the crops, pixels, or height and width such as 96x192; by default that of the
            encoder's training.
        min_scale: least share of an image's area in a training crop.
    """

    size: ImageSize | None = None
    min_scale: PositiveFloat = 0.08


@runtime_checkable
class ImageSet(Protocol):
    """Images by number: a shard set, annotated images, or those of several classes each."""

    @property
    def path(self) -> Path | str:
        """Where they are, for people."""

    @property
    def digest(self) -> str:
        """What tells them from others."""

    def image(self, number: int, /) -> Image.Image:
        """Decode one: RGB, upright; of a set of four bands RGBX."""


class LabelledCrops(NamedTuple):
    """Random crops of some images of a set, on the CPU.

    Attributes:
        images: normalised by ImageNet's mean and deviation.
        labels: their classes by number.
        rows: their numbers in the set.
    """

    images: Float[Tensor, "b _ h w"]
    labels: Int[Tensor, " b"]
    rows: Int[Tensor, " b"]


class _CentreCrops(Dataset[np.ndarray]):
    """The centre crop of an image by its number, uint8 [c, h, w]."""

    def __init__(self, data: ImageSet, size: ImageSize) -> None:
        self.data = data
        self.size = size

    def __getitem__(self, row: int) -> np.ndarray:
        crop = centre_crop(self.data.image(row), self.size)
        return np.array(crop).transpose(2, 0, 1)


def centre_crop(image: Image.Image, size: ImageSize) -> Image.Image:
    """The paper's test transform: resize, then cut the centre out.

    The shape of what is to be seen stays: the image is resized (bilinear) until it just covers
    height and width of the crop, each times 256 / 224. Of a square crop that is the short side.

    Args:
        image: of any size.
        size: of the crop, pixels.
    """
    resized = resize(image, [*covering_sides(Sides(image.height, image.width), size)])
    crop: Image.Image = center_crop(resized, [*sides(size)])
    return crop


def covering_sides(image: Sides, size: ImageSize) -> Sides:
    """The sides that an image is resized to before a centre crop is cut out.

    Args:
        image: sides of the image, pixels.
        size: of the crop, pixels.
    """
    height, width = sides(size)
    margin = Sides(round(height * 256 / 224), round(width * 256 / 224))
    if image.width * margin.height >= image.height * margin.width:
        return Sides(margin.height, int(margin.height * image.width / image.height))
    return Sides(int(margin.width * image.height / image.width), margin.width)


def centre_crops(
    data: ImageSet,
    batches: Iterable[list[int]],
    *,
    size: ImageSize,
    workers: int = 0,
) -> Iterator[Float[Tensor, "b _ h w"]]:
    """Batches of images by number, centre-cropped and normalised.

    Args:
        data: set of the images.
        batches: numbers of the images of each batch.
        size: of the crops, pixels.
        workers: processes that decode.
    """
    for pixels in load_examples(_CentreCrops(data, size), batches, workers):
        yield normalize(pixels.float() / 255)


def random_crops(
    data: shards.ShardSet,
    rows: Rows,
    *,
    size: ImageSize,
    min_scale: float,
    batch_size: int,
    steps: range,
    seed: int,
    workers: int = 0,
) -> Iterator[LabelledCrops]:
    """Random crops and flips of some images of a set, a batch for each step.

    Order and crops are a pure function of seed and step: a stream that starts later gives what
    one from the beginning gives from there on.

    Args:
        data: set of the images.
        rows: numbers of those that are shown.
        size: of the crops, pixels.
        min_scale: least share of an image's area in a crop.
        batch_size: images a step.
        steps: those that are left to do.
        seed: of the order and the crops.
        workers: processes that decode.
    """
    view = View(scale=(min_scale, 1.0), jitter_p=0, blur_p=0, gray_p=0)
    batches = (
        shards.step_ids(len(rows), batch_size=batch_size, step=step, seed=seed) for step in steps
    )
    # workers load ahead of the labels
    to_load, to_label = tee(batches)
    keys = (_keys(rows[ids], epoch) for epoch, ids in to_load)
    views = load_examples(CroppedViews(data, size, seed, (view,)), keys, workers)
    for (_, ids), crops in zip(to_label, views, strict=True):
        (pixels,) = crops.pixels
        labels = data.labels[rows[ids]].astype(np.int64)
        yield LabelledCrops(
            images=normalize(pixels.float() / 255),
            labels=torch.from_numpy(labels),
            rows=torch.from_numpy(rows[ids]),
        )


def views_of_images(
    data: shards.ShardSet,
    batches: Iterable[list[int]],
    views: tuple[View, ...],
    *,
    size: ImageSize,
    seed: int,
    workers: int = 0,
) -> Iterator[Float[Tensor, "b v 3 h w"]]:
    """Batches of images by number, each seen as several random views, on the CPU.

    The views are a pure function of seed and image, and none of those of a training.

    Args:
        data: set of the images.
        batches: numbers of the images of each batch.
        views: distributions of the views, which have the same size.
        size: of the views, pixels.
        seed: of the views.
        workers: processes that decode.
    """
    keys = ([(NO_EPOCH, row) for row in batch] for batch in batches)
    for crops in load_examples(CroppedViews(data, size, seed, views), keys, workers):
        by_view = zip(crops.pixels, crops.colours.unbind(1), crops.operations, strict=True)
        yield torch.stack([apply_photometrics(*of_view) for of_view in by_view], 1)


def _keys(rows: Rows, epoch: int) -> list[tuple[int, int]]:
    """What ``CroppedViews`` calls the views of some images in an epoch."""
    return [(epoch, int(row)) for row in rows]
