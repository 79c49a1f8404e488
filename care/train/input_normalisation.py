"""Encoders that others trained on pixels of another mean and deviation than ImageNet's."""

from collections.abc import Sequence
import torch
from care.encoded import InputNormalisation, bands_of
from care.encoders import Encoder
from care.errors import CareError
from care.train.photometrics import MEAN, STD


def expect_pixels(encoder: Encoder, mean: Sequence[float], std: Sequence[float]) -> None:
    """Let an encoder take images that are normalised by ImageNet's numbers as by its own.

    Args:
        encoder: gets its first step; its state has it, too, so that its digest is another one.
        mean: of each channel of RGB in 0…1, by which it was trained.
        std: their deviations.

    Raises:
        CareError: These are not three numbers each, or a deviation is not positive.
    """
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or max(map(abs, (*mean, *std))) > 1:
        raise CareError(
            "wanted mean and deviation of the three channels of RGB in 0 to 1, such as "
            f"0.5,0.5,0.5, got {_text(mean)} and {_text(std)}; divide those of 0 to 255 by 255"
        )
    if bands_of(encoder) > 3:
        raise CareError(f"{encoder.name} has the mean and deviation of its fourth band; give none")
    their_mean = torch.tensor(mean)
    their_std = torch.tensor(std)
    step = InputNormalisation()
    step.scale.copy_((torch.tensor(STD) / their_std)[:, None, None])
    step.shift.copy_(((torch.tensor(MEAN) - their_mean) / their_std)[:, None, None])
    encoder.input = step
    encoder.assumed += f"; input normalised by mean {_text(mean)} and deviation {_text(std)}"


def _text(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)
