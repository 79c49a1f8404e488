"""What the trainings of detectors and of segmenters share: slices of a batch, decay, progress."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from torch import nn
from care.errors import CareError
from care.train import ranks
from shards.pixel_report import PixelReport, differences
from shards.progress import progress, warn


def check_slices(batch_size: int) -> None:
    """Refuse a batch that the processes cannot share.

    Args:
        batch_size: images a step, on all processes together.

    Raises:
        CareError: It is no multiple of their number.
    """
    if batch_size % ranks.world():
        raise CareError(
            f"cannot cut {batch_size} images a step into {ranks.world()} equal parts; use a "
            "multiple of the processes"
        )


def warn_of_differences(train: PixelReport, val: PixelReport) -> None:
    """Tell, on the first process, where the images of two sets became other pixels.

    Args:
        train: of the images to learn from.
        val: of those to score.
    """
    if ranks.rank() == 0:
        for difference in differences(train, val):
            warn(difference)


def decay_all_but_norms(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters for an optimizer in two groups: without weight decay, and with it.

    Args:
        model: whose parameters they are.
        weight_decay: of the second group.
    """
    plain: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    for layer in model.modules():
        has_weights = isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)
        for parameter in layer.parameters(recurse=False):
            if has_weights or parameter.ndim > 1:
                decayed.append(parameter)
            else:
                plain.append(parameter)
    return [
        {"params": plain, "weight_decay": 0},
        {"params": decayed, "weight_decay": weight_decay},
    ]


def lead_progress(title: str, total: int) -> AbstractContextManager[Callable[[int, str], None]]:
    """``progress`` on the first process, nothing on the others.

    Args:
        title: what is done.
        total: how often, on all processes together.
    """
    if ranks.rank() == 0:
        return progress(title, total)
    return nullcontext(_show_nothing)


def _show_nothing(count: int, note: str = "") -> None:
    """Take the place of the progress that another process shows."""
