"""How well pixels are classified: the intersection over union of each class, of all images."""

import io
from collections.abc import Sequence
from typing import NamedTuple
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from care.evaluate.predictions import as_csv, as_percent
from care.evaluate.resampling import resamples, rounded
from shards.label_files import IGNORED, Labels, palette

PICTURES = 6  # images of val whose predictions are shown
PICTURE_SIDE = 160  # px, of the longest side of each
_GAP = 4  # px between pictures

Counts = NDArray[np.int64]


class PixelCounts(NamedTuple):
    """How the pixels of some images are classified.

    Attributes:
        hits: [n, classes], pixels of a class that are predicted as it.
        labelled: [n, classes], pixels of it.
        predicted: [n, classes], pixels that are predicted as it, of those that count.
        confusion: [classes, classes], pixels of all images by their class and their prediction.
    """

    hits: Counts
    labelled: Counts
    predicted: Counts
    confusion: Counts


class SeenImage(NamedTuple):
    """An image of val beside its labels and the predictions, made small.

    Attributes:
        number: of the image.
        pixels: [h, w, 3], RGB.
        labels: [h, w], 255 of what does not count.
        predictions: [h, w].
    """

    number: int
    pixels: NDArray[np.uint8]
    labels: Labels
    predictions: Labels


class SegmentationScores(NamedTuple):
    """What a segmenter predicts of the images of a set.

    Attributes:
        counts: of the pixels.
        classes: names of the classes.
        keys: names of the images [n].
        seen: the first images.
    """

    counts: PixelCounts
    classes: Sequence[str]
    keys: Sequence[str]
    seen: Sequence[SeenImage] = ()

    def __eq__(self, other: object) -> bool:
        """Whether all of them are equal; arrays alone would be compared one by one."""
        return isinstance(other, SegmentationScores) and self.files() == other.files()

    def __hash__(self) -> int:
        return hash(tuple(self.files().items()))

    def ious(self, weights: Counts | None = None) -> dict[str, float]:
        """Intersection over union, as a share of 1, of each class that is shown or predicted.

        Args:
            weights: [n], how often each image is there; by default once.
        """
        of_images = np.ones(len(self.keys), np.int64) if weights is None else weights
        hits = of_images @ self.counts.hits
        unions = of_images @ (self.counts.labelled + self.counts.predicted) - hits
        present = np.flatnonzero(unions).tolist()
        return {self.classes[number]: float(hits[number] / unions[number]) for number in present}

    def measures(self) -> dict[str, float]:
        """``miou``, the mean over classes, and ``pixels``, the share that is right; per cent."""
        right = float(self.counts.hits.sum() / max(self.counts.labelled.sum(), 1))
        return {"miou": as_percent(_mean(self.ious())), "pixels": as_percent(right)}

    def resampled(self) -> list[float]:
        """``miou`` on the draws of ``care.evaluate.resampling``."""
        draws = resamples(len(self.keys))
        return rounded([100 * _mean(self.ious(weights)) for weights in draws])

    def files(self) -> dict[str, bytes]:
        """What an evaluation leaves of them: the confusion, each image's pixels, and a picture."""
        confusion = self.counts.confusion
        rows = [
            [self.classes[label], self.classes[prediction], confusion[label, prediction]]
            for label, prediction in np.argwhere(confusion).tolist()
        ]
        images = zip(
            self.keys,
            self.counts.labelled.sum(1).tolist(),
            self.counts.hits.sum(1).tolist(),
            strict=True,
        )
        files = {
            "confusion.csv": as_csv(["class", "prediction", "pixels"], rows),
            "images.csv": as_csv(["key", "pixels", "right"], images),
        }
        if self.seen:
            files["segmentation.png"] = draw_pictures(self.seen, len(self.classes))
        return files


def count_pixels(labels: Labels, predictions: Labels, classes: int) -> Counts:
    """Pixels by their class and their prediction [classes, classes].

    Args:
        labels: [h, w], 255 of what does not count.
        predictions: [h, w].
        classes: how many there are.
    """
    counted = labels != IGNORED
    pairs = labels[counted].astype(np.int64) * classes + predictions[counted]
    counts: Counts = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return counts


def add_up(confusions: Sequence[Counts]) -> PixelCounts:
    """The counts of some images.

    Args:
        confusions: of each image [classes, classes].
    """
    of_images = np.stack([*confusions])
    return PixelCounts(
        hits=of_images.diagonal(axis1=1, axis2=2).copy(),
        labelled=of_images.sum(2),
        predicted=of_images.sum(1),
        confusion=of_images.sum(0),
    )


def make_small(
    number: int, pixels: NDArray[np.uint8], labels: Labels, predictions: Labels
) -> SeenImage:
    """An image for a picture.

    Args:
        number: of the image.
        pixels: [h, w, 3], RGB; perhaps of another size than the labels.
        labels: of every pixel.
        predictions: likewise.
    """
    height, width = labels.shape
    scale = min(PICTURE_SIDE / max(height, width), 1)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    small = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.NEAREST))
        for plane in (labels, predictions)
    ]
    return SeenImage(number, np.asarray(image), *small)


def draw_pictures(seen: Sequence[SeenImage], classes: int) -> bytes:
    """Images, their labels and the predictions side by side, a row each, as a PNG.

    Classes have the colours of VOC's palette; what does not count is white.
    """
    colours = np.full((IGNORED + 1, 3), 255, np.uint8)
    colours[:classes] = palette(classes)
    widths = [image.pixels.shape[1] for image in seen]
    heights = [image.pixels.shape[0] for image in seen]
    size = (3 * max(widths) + 2 * _GAP, sum(heights) + _GAP * (len(seen) - 1))
    sheet = Image.new("RGB", size, "white")
    top = 0
    for image in seen:
        shown = (image.pixels, colours[image.labels], colours[image.predictions])
        for column, pixels in enumerate(shown):
            sheet.paste(Image.fromarray(pixels), (column * (max(widths) + _GAP), top))
        top += image.pixels.shape[0] + _GAP
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _mean(shares: dict[str, float]) -> float:
    """The mean over classes, 0 of none."""
    return sum(shares.values()) / max(len(shares), 1)
