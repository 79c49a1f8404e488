"""Random operations on a view's pixels behind jitter and blur: which ones, and how strong.

RandAugment is InfoMin's, the photometric change is PIRL's. No pixels here.
"""

import math
from collections.abc import Callable
from enum import IntEnum
from statistics import NormalDist
from typing import Literal
import numpy as np
from jaxtyping import Float, Float32

Augment = Literal["rand-augment", "photometric"]
# uniform numbers of a view that has any of them
OPERATION_NUMBERS = 8
NO_OPERATIONS = np.empty((0, 2), np.float32)
# RandAugment: operations of an image, the probability of each, and how strong it is: normally
# distributed in tenths of the strongest, and never beyond
RAND_AUGMENT_COUNT = 2
RAND_AUGMENT_P = 0.5
MAGNITUDE = 10
MAGNITUDE_STD = 0.5
STRONGEST = 10
# the photometric change: its probability; bits that are kept, and factor of the sharpness
PHOTOMETRIC_P = 0.66
KEPT_BITS = (4, 8)
SHARPNESS = (0.1, 1.9)
# thresholds of solarisation, levels; nothing is inverted at the last one
LEVELS = 256


class Operation(IntEnum):
    """An operation on pixels, in the order in which RandAugment draws of them."""

    NONE = -1
    AUTO_CONTRAST = 0
    EQUALIZE = 1
    INVERT = 2
    ROTATE = 3
    POSTERIZE = 4
    SOLARIZE = 5
    SOLARIZE_ADD = 6
    SATURATION = 7
    CONTRAST = 8
    BRIGHTNESS = 9
    SHARPNESS = 10
    SHEAR_X = 11
    SHEAR_Y = 12
    TRANSLATE_X = 13
    TRANSLATE_Y = 14


# of a strength in 0…1 and a sign of ±1
Amount = Callable[[float, int], float]


def _bits(strength: float, _sign: int) -> float:
    return int(4 * strength)


def _threshold(strength: float, _sign: int) -> float:
    return int(LEVELS * strength)


def _added(strength: float, _sign: int) -> float:
    return int(110 * strength)


def _factor(strength: float, _sign: int) -> float:
    low, high = SHARPNESS
    return low + strength * (high - low)


def _degrees(strength: float, sign: int) -> float:
    return 30 * strength * sign


def _shear(strength: float, sign: int) -> float:
    return 0.3 * strength * sign


def _shift(strength: float, sign: int) -> float:
    return 0.45 * strength * sign


# how an operation is applied: bits that stay, levels, a factor, degrees, or shares of a side
AMOUNTS: dict[Operation, Amount] = {
    Operation.ROTATE: _degrees,
    Operation.POSTERIZE: _bits,
    Operation.SOLARIZE: _threshold,
    Operation.SOLARIZE_ADD: _added,
    Operation.SATURATION: _factor,
    Operation.CONTRAST: _factor,
    Operation.BRIGHTNESS: _factor,
    Operation.SHARPNESS: _factor,
    Operation.SHEAR_X: _shear,
    Operation.SHEAR_Y: _shear,
    Operation.TRANSLATE_X: _shift,
    Operation.TRANSLATE_Y: _shift,
}


def draw_operations(
    augment: Augment, uniform: Float[np.ndarray, "8"]
) -> Float32[np.ndarray, "n 2"]:
    """Draw the operations of a view.

    Args:
        augment: of which kind they are.
        uniform: numbers in 0…1, the only source of chance.

    Returns:
        One after the other what is done, an ``Operation``, and its amount.

    Source: RandAugment: HobbitLong/PyContrast, ``rand-n2-m10-mstd0.5``, of Tian et al. 2020.
    Photometric change: facebookresearch/vissl, ``ImgPilRandomPhotometric``, of Misra and van der
    Maaten 2020.
    """
    draw = _rand_augment if augment == "rand-augment" else _photometric
    return np.asarray(draw([float(number) for number in uniform]), np.float32)


def _rand_augment(uniform: list[float]) -> list[tuple[int, float]]:
    """Operations drawn of all, twice the same, too; each is left out half of the time."""
    count = len(Operation) - 1
    drawn = list[tuple[int, float]]()
    for first in range(0, 4 * RAND_AUGMENT_COUNT, 4):
        of_choice, of_decision, of_magnitude, of_sign = uniform[first : first + 4]
        operation = Operation(int(of_choice * count))
        # 0 has no quantile
        magnitude = NormalDist(MAGNITUDE, MAGNITUDE_STD).inv_cdf(max(of_magnitude, 2.0**-53))
        strength = min(max(magnitude, 0), STRONGEST) / STRONGEST
        amount_of = AMOUNTS.get(operation)
        amount = amount_of(strength, 1 if of_sign < 0.5 else -1) if amount_of else 0.0
        is_applied = of_decision < RAND_AUGMENT_P
        drawn.append((operation if is_applied else Operation.NONE, amount))
    return drawn


def _photometric(uniform: list[float]) -> list[tuple[int, float]]:
    """Fewer bits, another sharpness, solarisation and stretched contrast: all of them or none."""
    of_decision, of_bits, of_sharpness, of_threshold = uniform[:4]
    if of_decision >= PHOTOMETRIC_P:
        return [(Operation.NONE, 0.0)] * 4
    low, high = KEPT_BITS
    bits = low + math.floor(of_bits * (high - low + 1))
    threshold = math.floor(of_threshold * (LEVELS + 1))
    return [
        (Operation.POSTERIZE, bits),
        (Operation.SHARPNESS, _factor(of_sharpness, 1)),
        (Operation.SOLARIZE, threshold),
        (Operation.AUTO_CONTRAST, 0.0),
    ]
