"""The random views of BYOL's recipe: numbers, a pure function of (seed, epoch, sample, view), by which to crop and, in batches, colour."""

import operator
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in 0…1
GRAY = (0.299, 0.587, 0.114)
# numbers that a CPU colours at a time, a megabyte: one view of 224 px, 37 of 48 px; more leave its cache, fewer are all overhead
CACHED = 1 << 18


class View(NamedTuple):
    """The distribution of one view; the defaults are the paper's first one (Sec. 4.1, numbers of the released code)."""

    scale: tuple[float, float] = (0.08, 1.0)  # share of the image's area in the crop
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width over height of the crop
    # largest change of brightness, contrast, saturation (as a factor 1 ± x) and hue (as a share of the circle)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_p: float = 0.8
    blur: tuple[float, float] = (0.1, 2.0)  # standard deviation of the Gaussian blur, pixels of the view
    blur_p: float = 1.0
    gray_p: float = 0.2
    flip_p: float = 0.5
    solarize_p: float = 0.0

    def draw(self, seed: int, epoch: int, sample: int, view: int) -> "Drawn":
        """The random numbers of one view of one sample in one epoch."""
        # Raw Philox words: numpy promises their bits for ever, those of its distributions not. Every number is drawn whether
        # used or not, so one probability can change without moving the others.
        counter = np.array([0, view, sample, 1 << 62], np.uint64)
        words = np.random.Philox(key=np.array([seed % 2**64, epoch], np.uint64), counter=counter).random_raw(36)
        tries, shapes, place, ranks, changes, rest = np.split((words >> np.uint64(11)) * 2.0**-53, (10, 20, 22, 26, 30))
        areas = self.scale[0] + tries * (self.scale[1] - self.scale[0])
        ratios = self.ratio[0] * (self.ratio[1] / self.ratio[0]) ** shapes
        order, change = np.argsort(ranks), 1 + (2 * changes - 1) * self.jitter
        change[3] -= 1
        sigma = self.blur[0] + rest[0] * (self.blur[1] - self.blur[0])
        chances = self.jitter_p, self.blur_p, self.gray_p, self.flip_p, self.solarize_p
        jittered, blurred, gray, flipped, solarized = rest[1:] < chances
        colour = (*(order if jittered else (-1,) * 4), *change, sigma * blurred, gray, solarized)
        return Drawn(areas, ratios, place, bool(flipped), np.asarray(colour, dtype=np.float32))


VIEWS = (View(), View(blur_p=0.1, solarize_p=0.2))  # the paper's two


class Drawn(NamedTuple):
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
                left, top = int(self.place[0] * (width - w + 1)), int(self.place[1] * (height - h + 1))
                return left, top, left + w, top + h
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


def crop(image: UInt8[np.ndarray, "h w 3"], drawn: Drawn, size: int) -> UInt8[np.ndarray, "3 size size"]:
    """The view's crop of a decoded RGB image [h, w, 3], resized to ``size`` px (bilinear, antialiased) and flipped."""
    left, top, right, bottom = drawn.box(image.shape[1], image.shape[0])
    part = torch.from_numpy(image[top:bottom, left:right]).permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
    # torch's integer kernel: three times Pillow's speed, and at most a level away from it
    resized = F.interpolate(part, (size, size), mode="bilinear", antialias=True)[0]
    return np.ascontiguousarray((resized.flip(2) if drawn.flip else resized).numpy())


def colour(crops: UInt8[Tensor, "b 3 h w"], numbers: Float[Tensor, "b 11"]) -> Float[Tensor, "b 3 h w"]:
    """RGB crops jittered, blurred, grayed, solarized and normalised on their device; ``numbers``, on the CPU, their ``Drawn.colour``."""
    part = max(CACHED // crops[0].numel(), 1)
    if crops.device.type == "cpu" and len(crops) > part:
        return torch.cat([colour(crops[n : n + part], numbers[n : n + part]) for n in range(0, len(crops), part)])
    x = crops.float() / 255
    order, factors, sigma, gray, solarized = torch.split(numbers, [4, 4, 1, 1, 1], 1)
    for position in range(4):
        for operation, adjust in enumerate(JITTER):
            x = _some(x, order[:, position] == operation, adjust, factors[:, operation])
    x = _some(x, sigma[:, 0] > 0, _blur, sigma[:, 0])
    x = _some(x, gray[:, 0] > 0, lambda x, _: _luma(x).repeat(1, 3, 1, 1), gray)
    x = _some(x, solarized[:, 0] > 0, lambda x, _: torch.where(x >= 127.5 / 255, 1 - x, x), solarized)
    return normalize(x)


def _some(x: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor], Tensor], numbers: Tensor) -> Tensor:
    """``x`` with the images that are ``chosen`` (on the CPU) changed by their own number."""
    rows = chosen.nonzero()[:, 0]
    own = numbers[rows].to(x.device).reshape(-1, 1, 1, 1)
    if len(rows) == len(x):
        return change(x, own).clamp_(0, 1)
    if len(rows):
        rows = rows.to(x.device)
        x[rows] = change(x[rows], own).clamp_(0, 1)
    return x


def normalize(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """RGB in 0…1 to ImageNet's mean 0 and deviation 1."""
    mean, std = torch.tensor((MEAN, STD), device=x.device)[:, :, None, None].unbind()
    return (x - mean) / std


def _luma(x: Tensor) -> Tensor:
    red, green, blue = x.unbind(1)
    return (GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue)[:, None]


def _hue(x: Tensor, shift: Tensor) -> Tensor:
    red, green, blue = x.unbind(1)
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    # masks as numbers, by arithmetic: comparisons and torch.where take ten times as long on a CPU
    is_red = ((red - value) * 1e8).add_(1).clamp_(0)
    is_green = ((green - value) * 1e8).add_(1).clamp_(0) * (1 - is_red)
    is_blue = 1 - is_red - is_green
    difference = is_red * (green - blue) + is_green * (blue - red) + is_blue * (red - green)
    hue = difference / chroma.clamp_min(1e-9) + 2 * is_green + 4 * is_blue + 6 * shift[:, 0]
    hue -= 6 * (hue / 6).floor_()
    # channel n of HSV → RGB: value − chroma · clamp(2 − distance of n + hue − 2 from a multiple of 6, 0, 1)
    angles = hue[:, None] + torch.tensor((3.0, 1.0, -1.0), device=x.device)[:, None, None]
    distance = torch.minimum(angles.abs(), (angles - 6).abs_())
    return value[:, None] - chroma[:, None] * distance.neg_().add_(2).clamp_(0, 1)


JITTER: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    operator.mul,  # brightness
    lambda x, factor: torch.lerp(_luma(x.mean((2, 3), keepdim=True)), x, factor),  # contrast
    lambda x, factor: torch.lerp(_luma(x).expand_as(x), x, factor),  # saturation
    _hue,
)


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Pillow's Gaussian blur: along either axis three passes of a box of fractional radius, the border pixel repeated outwards."""
    kernels = [_box_kernel(float(s)) for s in sigma.flatten()]
    reach = max(len(k) for k in kernels) // 2
    taps = torch.tensor(np.stack([np.pad(k, reach - len(k) // 2) for k in kernels]), dtype=x.dtype, device=x.device)[:, :, None, None, None]
    for axis, margins in ((3, (reach, reach, 0, 0)), (2, (0, 0, reach, reach))):
        for _ in range(3):
            padded, count = F.pad(x, margins, mode="replicate"), x.shape[axis]
            x = padded.narrow(axis, 0, count) * taps[:, 0]
            for tap in range(1, 2 * reach + 1):
                x.addcmul_(padded.narrow(axis, tap, count), taps[:, tap])
    return x


def _box_kernel(sigma: float) -> np.ndarray:
    variance = sigma * sigma / 3
    whole = int((np.sqrt(12 * variance + 1) - 1) / 2)
    edge = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    return np.asarray([edge, *(1.0,) * (2 * whole + 1), edge]) / (2 * (whole + edge) + 1)
