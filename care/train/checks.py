"""What cannot work is told before a training begins, by the process that starts it."""

from collections.abc import Iterable
from pathlib import Path
import torch
from care.encoded import map_shape
from care.encoders import build_encoder
from care.errors import CareError
from care.train.initial import initial_encoder
from care.train.load import load_encoder
from care.train.machine import torch_device
from care.vit import VITS
from shards.errors import Misuse


def check_processes(nproc: int, device: str | None) -> None:
    """Refuse a device that is not there, and more processes than there are GPUs for.

    Args:
        nproc: processes that train together on this machine.
        device: "cuda", "cpu" or None for what there is.

    Raises:
        CareError: It is one of these.
    """
    gpus = torch.cuda.device_count()
    if torch_device(device).type == "cuda" and nproc > gpus:
        raise CareError(
            f"wanted a GPU for each of {nproc} processes, got {gpus}; give --nproc {gpus}"
            " or fewer, or --device cpu"
        )


def check_sources(sources: Iterable[str]) -> None:
    """Refuse encoders that are to be judged after a training and cannot be.

    Weights that ImageNet's labels gave are not fetched here, only their network is made.

    Args:
        sources: as for ``load_encoder``.

    Raises:
        CareError: There is nothing at a path, or nothing of that name.
    """
    for source in sources:
        kind, _, name = source.partition(":")
        if kind in ("random", "supervised"):
            build_encoder(name)
        else:
            load_encoder(source)


def check_encoder(name: str, *, size: int, init: str | Path | None) -> None:
    """Refuse an encoder that cannot be made, or whose initial weights cannot be had.

    Args:
        name: as for ``care.build_encoder``.
        size: side of the views, pixels.
        init: where its weights are from, None for random ones.

    Raises:
        CareError: It is one of these, or such views have no map at its tap.
    """
    encoder = build_encoder(name)
    map_shape(encoder, size)
    if init is not None:
        initial_encoder(init, encoder)


def check_t_stream(encoder: str) -> None:
    """Refuse a T-stream beside an encoder that is no CNN.

    Args:
        encoder: its name.

    Raises:
        Misuse: It is none.
    """
    if encoder in VITS:
        raise Misuse(
            f"{encoder} has no T-stream, which guides a CNN by a transformer's attention; give"
            " --no-t-stream to train its C-stream alone"
        )
