"""Encoders of a source, each loaded once in a process for as long as it is the same."""

from functools import cache
import torch
from care.encoders import Encoder
from care.train import load_encoder
from flows.encoder_identity import encoder_identity
from shards import storage


def loaded_encoder(
    source: str,
    seed: int,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Encoder:
    """An encoder, on the GPU where there is one.

    A worker of a cluster lives longer than a run takes to go on: what lies at a path is looked at.

    Args:
        source: a run, a weights file, or a name such as ``random:resnet50``.
        seed: of an encoder that is initialised here.
        mean: of the pixels that others trained it on, where that is not ImageNet's.
        std: their deviation.
    """
    return _loaded(source, storage.digest(encoder_identity(source)), seed, mean, std)


@cache
def _loaded(
    source: str,
    _: str,
    seed: int,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> Encoder:
    """The encoder of a source with a digest, which can be looked up."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_encoder(source, seed=seed, mean=mean, std=std).to(device)
