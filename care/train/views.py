"""BYOL's random views, and batches of two: pure functions of (seed, epoch, sample, view) and (seed, step), whatever the workers."""

import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
import shards
from care.train import ranks
from care.train.loading import worker_count

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in 0…1
CACHED = (
    1 << 18
)  # numbers that a CPU colours at a time, one view of 224 px, 37 of 48 px: more leave its cache, fewer are all overhead


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

    def draw(self, seed: int, epoch: int, sample: int, view: int) -> "Drawn":
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
                left, top = (
                    int(self.place[0] * (width - w + 1)),
                    int(self.place[1] * (height - h + 1)),
                )
                return left, top, left + w, top + h
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


def crop(
    image: UInt8[np.ndarray, "h w 3"], drawn: Drawn, size: int
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


def colour(
    crops: UInt8[Tensor, "b 3 h w"], numbers: Float[Tensor, "b 11"]
) -> Float[Tensor, "b 3 h w"]:
    """RGB crops jittered, blurred, grayed, solarized and normalised on their device; ``numbers``, on the CPU, their ``Drawn.colour``."""
    part = max(CACHED // crops[0].numel(), 1)
    if crops.device.type == "cpu" and len(crops) > part:
        return torch.cat(
            [colour(crops[n : n + part], numbers[n : n + part]) for n in range(0, len(crops), part)]
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
] = (  # of images by a number of their own, in the order of ``Drawn.colour``
    operator.mul,  # brightness
    lambda x, factor: torch.lerp(_luma(x.mean((2, 3), keepdim=True)), x, factor),  # contrast
    lambda x, factor: torch.lerp(_luma(x).expand_as(x), x, factor),  # saturation
    _hue,
    _blur,
    lambda x, _: _luma(x).repeat(1, 3, 1, 1),  # gray
    lambda x, _: torch.where(x >= 127.5 / 255, 1 - x, x),  # solarize
)


class Crops(Dataset[tuple[np.ndarray, np.ndarray]]):
    """Crops [views, 3, size, size] of the image at (epoch, sample) by some views, and the numbers by which to colour them."""

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
        shards.step_ids(len(data), batch_size=batch_size, step=n, seed=seed, run=data.run)
        for n in range(start, steps)
    )
    ids = (
        [(batch.epoch, int(sample)) for sample in batch.of_rank(ranks.rank(), ranks.world())]
        for batch in of_steps
    )
    where = torch.device(device)
    batch_bytes = batch_size // ranks.world() * len(views) * 3 * size**2
    workers = worker_count(workers, where, batches=steps - start, batch_bytes=batch_bytes)
    examples = loaded(Crops(data, size, seed, views), ids, workers, pin_memory=where.type == "cuda")
    for step, (crops, numbers) in enumerate(examples, start):
        # both views at once: of one, which is not contiguous, torch makes a pageable copy, and waits
        moved = crops.to(device, non_blocking=True)
        one, two = (colour(moved[:, n], numbers[:, n]) for n in range(2))
        yield step, (one, two)


def loaded(
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
