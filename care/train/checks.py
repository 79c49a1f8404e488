"""What cannot work is told before a training begins, by the process that starts the others."""

from pathlib import Path
import torch
from care.encoded import map_shape
from care.encoders import build_encoder
from care.errors import CareError
from care.train.load import load_encoder
from care.train.machine import torch_device


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


def check_encoder(name: str, *, size: int, init: str | Path | None) -> None:
    """Refuse an encoder that cannot be made, or whose initial weights cannot be had.

    Args:
        name: as for ``care.build_encoder``.
        size: side of the views, pixels.
        init: where its weights are from, None for random ones.

    Raises:
        CareError: It is one of these, or such views have no map at its tap.
    """
    with torch.random.fork_rng(devices=[]):
        map_shape(build_encoder(name), size)
    if init is not None:
        load_encoder(init)
