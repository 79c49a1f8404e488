"""The fourth band of images, such as near infrared: what an encoder normalises it by.

Red, green and blue are normalised by ImageNet's mean and deviation, as everywhere. Of a fourth band
those of the set are measured when a training begins, and belong to the encoder's state.
"""

import numpy as np
from torch import nn
import shards
from care.encoded import InputNormalisation, bands_of
from care.encoders import ResNetEncoder

# images of a set that are looked at, evenly chosen
LOOKED_AT = 256
# least deviation, a gray level: a constant band stays finite
LEAST_STD = 1 / 255


def fit_fourth_band(network: nn.Module, data: shards.ShardSet) -> None:
    """Let the encoders of four bands in a network normalise the fourth by that of a set.

    Args:
        network: an encoder, or online and target; one of three bands stays as it is.
        data: a set of four bands; its digest and nothing else decides the numbers.

    Raises:
        ShardError: A sample is damaged.
    """
    steps = [
        module.input
        for module in network.modules()
        if isinstance(module, ResNetEncoder) and bands_of(module) > 3
    ]
    if not steps:
        return
    mean, std = fourth_band_statistics(data)
    for step in steps:
        if isinstance(step, InputNormalisation):
            step.scale[3] = 1 / std
            step.shift[3] = -mean / std


def fourth_band_statistics(data: shards.ShardSet) -> tuple[float, float]:
    """Mean and deviation of the fourth band of a set, in 0…1.

    Args:
        data: of four bands; of a large one some images are looked at, evenly chosen.
    """
    count = min(LOOKED_AT, len(data))
    rows = np.linspace(0, len(data) - 1, count).round().astype(int)
    sums = np.zeros(3)
    for row in rows:
        values = np.asarray(data.image(int(row)))[..., 3] / 255
        sums += (values.size, values.sum(), np.square(values).sum())
    pixels, total, squares = sums.tolist()
    mean = total / pixels
    variance = max(squares / pixels - mean**2, 0.0)
    return mean, max(variance**0.5, LEAST_STD)
