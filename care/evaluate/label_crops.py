"""Images with labels as a segmenter sees them: scaled, cropped, perhaps mirrored; or whole.

All is a pure function of the image and of how it is shown; nothing here knows the network.
"""

from collections.abc import Iterator
from typing import NamedTuple
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
import shards
from care.train import ranks
from care.train.batches import load_examples
from care.train.photometrics import MEAN
from shards.label_files import IGNORED, Labels
from shards.segmentation import SegmentationSet

LEAST_SCALE, LARGEST_SCALE = 0.5, 2.0  # of an image in training
# what is around an image that is smaller than its crop: 0 once it is normalised, but for rounding
_GROUND = np.array([round(255 * mean) for mean in MEAN], np.uint8)


class ShownCrop(NamedTuple):
    """Which image is shown, and how.

    Attributes:
        number: of the image in its set.
        scale: its sides over those that it is learned at.
        left: where the crop is between the left and the right end, 0…1.
        top: where it is between the upper and the lower end, 0…1.
        mirrored: whether left and right are exchanged.
    """

    number: int
    scale: float
    left: float
    top: float
    mirrored: bool


class LabelBatch(NamedTuple):
    """Crops of a step, on the device of the segmenter.

    Attributes:
        images: in 0…1.
        labels: classes by number, 255 of what does not count.
    """

    images: Float[Tensor, "b 3 crop crop"]
    labels: UInt8[Tensor, "b crop crop"]


class WholeImage(NamedTuple):
    """An image at the size that it is judged at, and its labels at its own.

    Attributes:
        pixels: RGB.
        labels: classes by number, 255 of what does not count.
    """

    pixels: UInt8[Tensor, "3 h w"]
    labels: Labels


def draw_crop(seed: int, epoch: int, number: int) -> ShownCrop:
    """How an image is shown in training: a pure function of the arguments."""
    generator = np.random.default_rng((seed, epoch, number))
    lows = (LEAST_SCALE, 0.0, 0.0)
    highs = (LARGEST_SCALE, 1.0, 1.0)
    numbers = [float(draw) for draw in generator.uniform(lows, highs)]
    mirrored = bool(generator.integers(2))
    return ShownCrop(number, numbers[0], numbers[1], numbers[2], mirrored)


class LabelCrops(Dataset[tuple[UInt8[Tensor, "3 c c"], UInt8[Tensor, "c c"]]]):
    """Crops by how they are shown: RGB, and the classes of their pixels.

    Args:
        data: set of the images.
        crop: side of the crops, pixels.
        side: pixels of an image's short side at scale 1; None: its own.
    """

    def __init__(self, data: SegmentationSet, crop: int, side: int | None) -> None:
        self.data = data
        self.crop = crop
        self.side = side

    def __getitem__(self, shown: ShownCrop) -> tuple[Tensor, Tensor]:
        image, labels = self.data.sample(shown.number)
        size = _scaled(image.size, self.side, shown.scale)
        pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
        classes = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
        rows = _range(size[1], self.crop, shown.top)
        columns = _range(size[0], self.crop, shown.left)
        crop_pixels = np.tile(_GROUND, (self.crop, self.crop, 1))
        crop_labels = np.full((self.crop, self.crop), IGNORED, np.uint8)
        part = pixels[rows, columns]
        height, width = part.shape[:2]
        crop_pixels[:height, :width] = part
        crop_labels[:height, :width] = classes[rows, columns]
        if shown.mirrored:
            crop_pixels, crop_labels = crop_pixels[:, ::-1], crop_labels[:, ::-1]
        return _as_tensor(crop_pixels), torch.from_numpy(crop_labels.copy())


class WholeImages(Dataset[WholeImage]):
    """Images by number as they are judged, with their labels.

    Args:
        data: set of the images.
        side: pixels of an image's short side; None: its own.
    """

    def __init__(self, data: SegmentationSet, side: int | None) -> None:
        self.data = data
        self.side = side

    def __getitem__(self, number: int) -> WholeImage:
        image, labels = self.data.sample(number)
        size = _scaled(image.size, self.side, 1)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        return WholeImage(_as_tensor(np.asarray(image)), labels)


def training_crops(
    crops: LabelCrops,
    *,
    batch_size: int,
    steps: range,
    seed: int,
    workers: int,
    device: torch.device,
) -> Iterator[LabelBatch]:
    """This process's slice of the batch of every step: a pure function of seed and step.

    Args:
        crops: of the images to learn from.
        batch_size: images a step, on all processes together.
        steps: those that are left to do.
        seed: of the order, the scales, the crops and the flips.
        workers: processes that decode.
        device: where the crops are sent.
    """
    shown = (_draw_batch(crops.data, batch_size=batch_size, step=step, seed=seed) for step in steps)
    for pixels, labels in load_examples(crops, shown, min(workers, len(steps))):
        yield LabelBatch(pixels.to(device).float() / 255, labels.to(device))


def _draw_batch(data: SegmentationSet, *, batch_size: int, step: int, seed: int) -> list[ShownCrop]:
    """How the images of this process are shown in a step."""
    ids = shards.step_ids(len(data.keys), batch_size=batch_size, step=step, seed=seed)
    numbers = ids.of_rank(ranks.rank(), ranks.world())
    return [draw_crop(seed, ids.epoch, int(number)) for number in numbers]


def _scaled(size: tuple[int, int], side: int | None, scale: float) -> tuple[int, int]:
    """Width and height of an image that is scaled, of which its short side is ``side`` first."""
    factor = scale * (side or min(size)) / min(size)
    width, height = (max(round(length * factor), 1) for length in size)
    return width, height


def _range(length: int, crop: int, place: float) -> slice:
    """The pixels of a crop along a side of an image.

    Args:
        length: of the side.
        crop: of the crop's.
        place: of the crop, from 0, the beginning, up to 1.
    """
    free = max(length - crop, 0)
    start = min(int(place * (free + 1)), free)
    return slice(start, start + crop)


def _as_tensor(pixels: NDArray[np.uint8]) -> UInt8[Tensor, "3 h w"]:
    """An image [h, w, 3] as torch has it."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
