"""What a view does to pixels: the crop of one image, and the colours of a batch of crops, on their device."""

import operator
from collections.abc import Callable
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from care.train.views import ViewParameters

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in 0…1

CACHED = (
    1 << 18
)  # numbers that a CPU colours at a time, one view of 224 px, 37 of 48 px: more leave its cache, fewer are all overhead


def crop(
    image: UInt8[np.ndarray, "h w 3"], drawn: ViewParameters, size: int
) -> UInt8[np.ndarray, "3 size size"]:
    """The view's crop of a decoded RGB image [h, w, 3], resized to ``size`` px (bilinear, antialiased) and flipped."""
    left, top, right, bottom = drawn.box(image.shape[1], image.shape[0])
    part = (
        torch.from_numpy(image[top:bottom, left:right])
        .permute(2, 0, 1)[None]
        .contiguous(memory_format=torch.channels_last)
    )
    # torch's integer kernel: three times Pillow's speed, and at most a level away from it
    resized = nn.functional.interpolate(part, (size, size), mode="bilinear", antialias=True)[0]
    return np.ascontiguousarray((resized.flip(2) if drawn.flip else resized).numpy())


def apply_photometrics(
    crops: UInt8[Tensor, "b 3 h w"], numbers: Float[Tensor, "b 11"]
) -> Float[Tensor, "b 3 h w"]:
    """RGB crops jittered, blurred, grayed, solarized and normalised on their device; ``numbers``, on the CPU, their ``ViewParameters.colour``."""
    part = max(CACHED // crops[0].numel(), 1)
    if crops.device.type == "cpu" and len(crops) > part:
        return torch.cat(
            [
                apply_photometrics(crops[n : n + part], numbers[n : n + part])
                for n in range(0, len(crops), part)
            ]
        )
    x, order, amounts = crops.float() / 255, numbers[:, :4], numbers[:, 4:]
    jitter = [(order[:, place] == n, n) for place in range(4) for n in range(4)]
    others = [(amounts[:, n] > 0, n) for n in range(4, 7)]
    for chosen, n in jitter + others:
        rows = chosen.nonzero()[:, 0]
        own = amounts[rows, n].to(x.device).reshape(-1, 1, 1, 1)
        if len(rows) == len(x):
            x = CHANGES[n](x, own).clamp_(0, 1)
        elif len(rows):
            rows = rows.to(x.device)
            x[rows] = CHANGES[n](x[rows], own).clamp_(0, 1)
    return normalize(x)


def normalize(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """RGB in 0…1 to ImageNet's mean 0 and deviation 1."""
    mean, std = torch.tensor((MEAN, STD), device=x.device)[:, :, None, None].unbind()
    return (x - mean) / std


def _luma(x: Tensor) -> Tensor:
    red, green, blue = x.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]


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


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Pillow's Gaussian blur: along either axis three passes of a box of fractional radius, the border pixel repeated outwards."""
    variance = sigma.double() * sigma.double() / 3
    whole = (
        ((12 * variance + 1).sqrt() - 1) / 2
    ).floor()  # pixels on either side that count in full; one more counts in part
    edge = (
        (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    )
    reach = int(whole.max()) + 1
    distance = torch.arange(-reach, reach + 1, device=x.device).abs()
    taps = (((distance <= whole) + edge * (distance == whole + 1)) / (2 * (whole + edge) + 1)).to(
        x.dtype
    )
    for axis, margins in [(3, (reach, reach, 0, 0))] * 3 + [(2, (0, 0, reach, reach))] * 3:
        padded, count = nn.functional.pad(x, margins, mode="replicate"), x.shape[axis]
        x = padded.narrow(axis, 0, count) * taps[..., :1]
        for tap in range(1, 2 * reach + 1):
            x.addcmul_(padded.narrow(axis, tap, count), taps[..., tap : tap + 1])
    return x


CHANGES: tuple[
    Callable[[Tensor, Tensor], Tensor], ...
] = (  # of images by a number of their own, in the order of ``ViewParameters.colour``
    operator.mul,  # brightness
    lambda x, factor: torch.lerp(_luma(x.mean((2, 3), keepdim=True)), x, factor),  # contrast
    lambda x, factor: torch.lerp(_luma(x).expand_as(x), x, factor),  # saturation
    _hue,
    _blur,
    lambda x, _: _luma(x).repeat(1, 3, 1, 1),  # gray
    lambda x, _: torch.where(x >= 127.5 / 255, 1 - x, x),  # solarize
)
