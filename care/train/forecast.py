"""How long a training will take on this CPU, measured on a few images before it starts."""

import copy
import time
from collections.abc import Sequence
import torch
from torch import Tensor
from care.encoded import bands_of
from care.streams import CStream, TStream
from care.train.batches import noise_views
from care.train.losses import Losses
from care.train.precision import Precision, fastest_precision
from care.train.views import VIEWS, View
from shards.image_size import ImageSize, sides

# pixels of all images of a training: fewer are seen within the hour on any CPU
FEW_PIXELS = 10**8
# s: a round of at least so long is measured well enough
LONG_ENOUGH = 1.0
# a round has at most so many images
MOST_IMAGES = 32


def is_worth_a_forecast(device: torch.device, *, images: int, size: ImageSize) -> bool:
    """Whether a training could take hours, so that measuring it is worth some seconds.

    Args:
        device: that it is to run on.
        images: that it sees, an image once for each epoch.
        size: of the views, pixels.
    """
    return device.type == "cpu" and images * sides(size).pixels >= FEW_PIXELS


def forecast_seconds(
    c: CStream,
    t: TStream | None,
    *,
    images: int,
    size: ImageSize,
    precision: Precision | None = None,
    views: Sequence[View] = VIEWS,
) -> float:
    """How long the steps of a training take on this machine's CPU, decoding not counted.

    Copies of the streams take steps on random pixels, on ever more of them until a step is long
    enough to be measured.

    Args:
        c: the C-stream; neither its statistics nor torch's global generator are changed.
        t: the T-stream, or None.
        images: that the training sees.
        size: of the views, pixels.
        precision: of the arithmetic; by default what is fastest here.
        views: their distributions, of which sizes and number count.

    Returns:
        Seconds.
    """
    model = copy.deepcopy(Losses(c, t, 1)).to(memory_format=torch.channels_last).train()
    is_bf16 = (precision or fastest_precision(torch.device("cpu"))) == "bf16"
    measured = 2
    bands = bands_of(c.backbone.online)
    with torch.random.fork_rng(devices=[]):
        seconds = _seconds_of_step(
            model, noise_views(views, measured, size, bands=bands), is_bf16=is_bf16
        )
        while seconds < LONG_ENOUGH and measured < min(MOST_IMAGES, images):
            measured *= 2
            seconds = _seconds_of_step(
                model, noise_views(views, measured, size, bands=bands), is_bf16=is_bf16
            )
    return seconds * images / measured


def describe_duration(seconds: float) -> str:
    """A long time in words, such as "31 hours" or "13 days"."""
    hours = seconds / 3600
    if hours < 72:
        return f"{hours:.0f} hours" if hours >= 1.5 else "an hour"
    return f"{hours / 24:.0f} days"


def _seconds_of_step(model: Losses, views: list[Tensor], *, is_bf16: bool) -> float:
    """Time the passes of one step forward and backward."""
    # whatever its size, a bank has a place for the first image
    samples = torch.zeros(len(views[0]), dtype=torch.int64)
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        total = model(views, samples)["total"]
    total.backward()
    model.zero_grad()
    return time.perf_counter() - began
