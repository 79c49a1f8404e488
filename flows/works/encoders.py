"""Encoders of a source, on the device that they are used on."""

import torch
from care.encoders import Encoder
from care.train import load_encoder


def encoder_on_device(
    source: str,
    seed: int,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Encoder:
    """An encoder, on the GPU where there is one.

    Args:
        source: a run, a weights file, or a name such as ``random:resnet50``.
        seed: of an encoder that is initialised here.
        mean: of the pixels that others trained it on, where that is not ImageNet's.
        std: their deviation.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_encoder(source, seed=seed, mean=mean, std=std).to(device)
