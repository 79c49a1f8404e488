"""BYOL's random views: the distribution of one, and the drawing of its numbers, a pure function of (seed, epoch, sample, view)."""

from typing import NamedTuple
import numpy as np


class View(NamedTuple):
    """The distribution of one view; the defaults are the paper's first one (Sec. 4.1, numbers of the released code)."""

    scale: tuple[float, float] = (0.08, 1.0)  # share of the image's area in the crop
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width over height of the crop
    jitter: tuple[float, float, float, float] = (
        0.4,
        0.4,
        0.2,
        0.1,
    )  # brightness, contrast, saturation (1 ± x), hue (share of the circle)
    jitter_p: float = 0.8
    blur: tuple[float, float] = (
        0.1,
        2.0,
    )  # standard deviation of the Gaussian blur, pixels of the view
    blur_p: float = 1.0
    gray_p: float = 0.2
    flip_p: float = 0.5
    solarize_p: float = 0.0

    def draw(self, seed: int, epoch: int, sample: int, view: int) -> "ViewParameters":
        """The random numbers of one view of one sample in one epoch."""
        # Raw Philox words: numpy promises their bits for ever, those of its distributions not. Every number is drawn whether
        # used or not, so one probability can change without moving the others.
        counter = np.array([0, view, sample, 1 << 62], np.uint64)
        words = np.random.Philox(
            key=np.array([seed % 2**64, epoch], np.uint64), counter=counter
        ).random_raw(36)
        tries, shapes, place, ranks, changes, rest = np.split(
            (words >> np.uint64(11)) * 2.0**-53, (10, 20, 22, 26, 30)
        )
        areas = self.scale[0] + tries * (self.scale[1] - self.scale[0])
        ratios = self.ratio[0] * (self.ratio[1] / self.ratio[0]) ** shapes
        order, change = np.argsort(ranks), 1 + (2 * changes - 1) * self.jitter
        change[3] -= 1
        sigma = self.blur[0] + rest[0] * (self.blur[1] - self.blur[0])
        chances = self.jitter_p, self.blur_p, self.gray_p, self.flip_p, self.solarize_p
        jittered, blurred, gray, flipped, solarized = rest[1:] < chances
        colour = (*(order if jittered else (-1,) * 4), *change, sigma * blurred, gray, solarized)
        return ViewParameters(
            areas, ratios, place, bool(flipped), np.asarray(colour, dtype=np.float32)
        )


VIEWS = (View(), View(blur_p=0.1, solarize_p=0.2))  # the paper's two


class ViewParameters(NamedTuple):
    """The random numbers of one view."""

    areas: np.ndarray
    ratios: np.ndarray
    place: np.ndarray
    flip: bool
    colour: np.ndarray  # float32 [11]: order of the jitter's operations (−1: none), their factors, blur σ (0: none), gray, solarize

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Crop (left, top, right, bottom): the first of ten tries that fits into the image, else its centre (torchvision's rule)."""
        for area, ratio in zip(self.areas * width * height, self.ratios, strict=True):
            w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if 0 < w <= width and 0 < h <= height:
                left, top = (
                    int(self.place[0] * (width - w + 1)),
                    int(self.place[1] * (height - h + 1)),
                )
                return left, top, left + w, top + h
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h
