"""The random views of BYOL's recipe: drawn as numbers on the CPU, cropped there, coloured in batches on the device.

A view's numbers are a pure function of (seed, epoch, sample, view), so no generator has a state to save.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, of RGB in 0…1."""
GRAY = (0.299, 0.587, 0.114)

Box = tuple[int, int, int, int]


class View(NamedTuple):
    """The distribution of one view; the defaults are the paper's first one (Sec. 4.1, numbers of the released code)."""

    scale: tuple[float, float] = (0.08, 1.0)
    """Share of the image's area in the crop."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of the crop."""
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    """Largest change of brightness, contrast, saturation (as a factor 1 ± x) and hue (as a share of the circle)."""
    jitter_p: float = 0.8
    blur: tuple[float, float] = (0.1, 2.0)
    """Standard deviation of the Gaussian blur, pixels of the view."""
    blur_p: float = 1.0
    gray_p: float = 0.2
    flip_p: float = 0.5
    solarize_p: float = 0.0

    def draw(self, seed: int, epoch: int, sample: int, view: int) -> "Drawn":
        """The random numbers of one view of one sample in one epoch."""
        rng = np.random.default_rng((seed, epoch, sample, view))
        # Every number is drawn whether used or not, so one probability can change without moving the others.
        areas, ratios = rng.uniform(*self.scale, 10), np.exp(rng.uniform(np.log(self.ratio[0]), np.log(self.ratio[1]), 10))
        place, order = rng.random(2), rng.permutation(4)
        change = 1 + rng.uniform(-1, 1, 4) * self.jitter
        change[3] -= 1
        sigma = rng.uniform(*self.blur)
        jittered, blurred, gray, flipped, solarized = rng.random(5) < (
            self.jitter_p,
            self.blur_p,
            self.gray_p,
            self.flip_p,
            self.solarize_p,
        )
        colour = (*(order if jittered else (-1,) * 4), *change, sigma * blurred, gray, solarized)
        return Drawn(areas, ratios, place, bool(flipped), np.asarray(colour, dtype=np.float32))


VIEWS = (View(), View(blur_p=0.1, solarize_p=0.2))
"""The paper's two views."""


class Drawn(NamedTuple):
    """The random numbers of one view."""

    areas: np.ndarray
    ratios: np.ndarray
    place: np.ndarray
    flip: bool
    colour: np.ndarray
    """float32 [11]: order of the jitter's operations (−1: none) [4], their factors [4], blur σ (0: none), grayscale, solarize."""

    def box(self, width: int, height: int) -> Box:
        """Crop (left, top, right, bottom): the first of ten tries that fits into the image, else its centre (torchvision's rule)."""
        for area, ratio in zip(self.areas * width * height, self.ratios, strict=True):
            w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if 0 < w <= width and 0 < h <= height:
                left, top = int(self.place[0] * (width - w + 1)), int(self.place[1] * (height - h + 1))
                return left, top, left + w, top + h
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


def crop(image: Image.Image, drawn: Drawn, size: int) -> UInt8[np.ndarray, "3 size size"]:
    """The view's crop of a decoded RGB image, resized to ``size`` px (bilinear, antialiased) and flipped."""
    # cropped first: resize(box=…) would mix in what lies outside of the crop
    resized = image.crop(drawn.box(*image.size)).resize((size, size), Image.Resampling.BILINEAR)
    if drawn.flip:
        resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(resized).transpose(2, 0, 1)


def colour(crops: UInt8[Tensor, "b 3 h w"], numbers: Float[Tensor, "b 11"]) -> Float[Tensor, "b 3 h w"]:
    """Colour jitter, blur, grayscale, solarize and normalisation of a batch, on the crops' device.

    Args:
        crops: RGB.
        numbers: ``Drawn.colour`` of each crop, on the CPU.
    """
    x = crops.float() / 255
    order, factors, sigma, gray, solarized = torch.split(numbers, [4, 4, 1, 1, 1], 1)
    for position in range(4):
        for operation, adjust in enumerate((_brightness, _contrast, _saturation, _hue)):
            rows = (order[:, position] == operation).nonzero()[:, 0]
            if len(rows):
                factor = factors[rows, operation].to(x.device)[:, None, None, None]
                rows = rows.to(x.device)
                x[rows] = adjust(x[rows], factor).clamp_(0, 1)
    rows = sigma[:, 0].nonzero()[:, 0]
    if len(rows):
        x[rows.to(x.device)] = _blur(x[rows.to(x.device)], sigma[rows, 0])
    x = torch.where(gray.to(x.device)[:, :, None, None] > 0, _luma(x), x)
    x = torch.where((solarized.to(x.device)[:, :, None, None] > 0) & (x >= 127.5 / 255), 1 - x, x)
    return normalize(x)


def normalize(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """RGB in 0…1 to ImageNet's mean 0 and deviation 1."""
    mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (MEAN, STD))
    return (x - mean) / std


def _luma(x: Tensor) -> Tensor:
    red, green, blue = x.unbind(1)
    return (GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue)[:, None]


def _brightness(x: Tensor, factor: Tensor) -> Tensor:
    return x * factor


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_luma(x).mean((2, 3), keepdim=True), x, factor)


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_luma(x).expand_as(x), x, factor)


def _hue(x: Tensor, shift: Tensor) -> Tensor:
    red, green, blue = x.unbind(1)
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    divisor = torch.where(chroma > 0, chroma, 1)
    sector = torch.where(
        value == red, (green - blue) / divisor, torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    )
    hue = (sector + 6 * shift[:, 0])[:, None]
    # channel n of HSV → RGB: value − chroma · clamp(min(k, 4 − k), 0, 1) with k = (n + hue) mod 6
    k = (hue + torch.tensor((5.0, 3.0, 1.0), device=x.device)[:, None, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp_(0, 1)


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Pillow's Gaussian blur, three passes of a box of fractional radius, as one matrix product per axis."""
    kernels = [_box_kernel(float(s)) for s in sigma]
    reach = max(len(k) for k in kernels) // 2
    taps = torch.tensor(np.stack([np.pad(k, reach - len(k) // 2) for k in kernels]), dtype=torch.float32, device=x.device)

    def matrices(n: int) -> Tensor:  # [b, n, n], in every pass the border pixel repeated outwards
        source = (torch.arange(n)[:, None] + torch.arange(-reach, reach + 1)).clamp_(0, n - 1).to(x.device)
        box = x.new_zeros(len(x), n, n).scatter_add_(2, source.expand(len(x), -1, -1), taps[:, None].expand(-1, n, -1))
        return box @ box @ box

    _, _, height, width = x.shape
    return matrices(height)[:, None] @ x @ matrices(width)[:, None].transpose(2, 3)


def _box_kernel(sigma: float) -> np.ndarray:
    variance = sigma * sigma / 3
    whole = int((np.sqrt(12 * variance + 1) - 1) / 2)
    edge = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    return np.asarray([edge, *(1.0,) * (2 * whole + 1), edge]) / (2 * (whole + edge) + 1)
