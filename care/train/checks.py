"""What cannot work is told before a training begins, by the process that starts it."""

from pathlib import Path
import torch
from torch import nn
from care.colour_split import SPACES
from care.encoded import map_shape
from care.encoders import Encoder, build_encoder
from care.errors import CareError
from care.objectives.by_name import OBJECTIVES
from care.train.devices import torch_device
from care.train.initial import initial_encoder
from care.train.load import load_encoder
from care.train.recipes import recipe_for, recipe_optimizer
from care.train.supervised import supervised_network
from care.vit import VITS, ViTEncoder
from shards.errors import Misuse
from shards.image_size import ImageSize


def check_processes(nproc: int, device: str | None) -> None:
    """Refuse a device that is not there, and more processes than there are GPUs for.

    Args:
        nproc: processes that train together on this machine.
        device: its name, or None for what there is.

    Raises:
        CareError: It is one of these.
    """
    kind = torch_device(device).type
    if kind == "mps" and nproc > 1:
        raise CareError(f"wanted one process on the device mps, got {nproc}; leave --nproc out")
    gpus = torch.cuda.device_count()
    if kind == "cuda" and nproc > gpus:
        raise CareError(
            f"wanted a GPU for each of {nproc} processes, got {gpus}; give --nproc {gpus}"
            " or fewer, or --device cpu"
        )


def judged_network(source: str) -> Encoder:
    """The network of an encoder that is to be judged after a training, perhaps untrained.

    Weights that ImageNet's labels gave are not fetched here, only their network is made.

    Args:
        source: as for ``load_encoder``.

    Raises:
        CareError: There is nothing at a path, or nothing of that name, or no such weights.
    """
    kind, _, name = source.partition(":")
    if kind == "supervised":
        return supervised_network(name)
    return build_encoder(name) if kind == "random" else load_encoder(source)


def check_optimizer(objective: str, name: str | None) -> None:
    """Refuse an optimizer that cannot be made.

    Args:
        objective: of the C-stream, whose recipe decides it by default.
        name: key of ``care.train.optimizers.OPTIMIZERS``, where another one is asked for.

    Raises:
        CareError: Its library is not installed.
    """
    optimizer = recipe_optimizer(recipe_for(objective), name)
    optimizer.build([("weight", nn.Parameter(torch.zeros(1, 1)))])


def check_encoder(name: str, *, size: ImageSize, init: str | Path | None) -> Encoder:
    """Refuse an encoder that cannot be made, or whose initial weights cannot be had.

    Args:
        name: as for ``care.build_encoder``.
        size: of the views, pixels.
        init: where its weights are from, None for random ones.

    Returns:
        It, without those weights.

    Raises:
        CareError: It is one of these, or such views have no map at its tap or no positions.
    """
    encoder = build_encoder(name)
    if isinstance(encoder, ViTEncoder):
        encoder.grid_of(size)
    map_shape(encoder, size)
    if init is not None:
        initial_encoder(init, encoder)
    return encoder


def check_method(encoder: str, objective: str, *, t_stream: bool) -> None:
    """Refuse methods that do not go together with an encoder.

    Args:
        encoder: its name.
        objective: of the C-stream, a key of ``care.objectives.by_name.OBJECTIVES``.
        t_stream: whether there is one.

    Raises:
        Misuse: A T-stream is beside an encoder that is no CNN, or one encoder is there where two
            are wanted.
    """
    if t_stream and encoder in VITS:
        raise Misuse(
            f"{encoder} has no T-stream, which guides a CNN by a transformer's attention; give"
            " --no-t-stream to train its C-stream alone"
        )
    if OBJECTIVES[objective].branches > 1 and encoder.partition(":")[0] not in SPACES:
        raise Misuse(
            f"{objective} compares what two encoders make of lightness and of colour; wanted an"
            f" encoder such as lab:resnet50 or ydbdr:resnet50, got {encoder}"
        )
