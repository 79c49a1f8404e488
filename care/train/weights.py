"""Weights by name and shape: into a module, exactly or not at all; an encoder's file; a digest."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from care.colour_split import ColourSplitEncoder
from care.encoders import ResNetEncoder
from care.errors import CareError
from care.tapped import TappedEncoder
from care.vit import ViTEncoder
from shards import storage
from shards.image_size import ImageSize

# timm's name of the positions of a vision transformer
POSITIONS = "pos_embed"


class Misfit(NamedTuple):
    """How tensors differ from the state of a module, by key and shape.

    Attributes:
        differing: how many do; 0 if they fit.
        text: the first of them, in words; "" if they fit.
    """

    differing: int
    text: str


def misfit(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> Misfit:
    """Compare tensors with the state of a module that is to have them.

    Args:
        state: of the module; its values do not count.
        tensors: by name.

    Returns:
        What is missing, unexpected or of another shape.
    """
    reshaped = {
        name for name in state.keys() & tensors.keys() if state[name].shape != tensors[name].shape
    }
    differing = {
        "missing": state.keys() - tensors.keys(),
        "unexpected": tensors.keys() - state.keys(),
        "of another shape": reshaped,
    }
    texts = [
        f"{len(names)} {what} (first: {', '.join(sorted(names)[:3])})"
        for what, names in differing.items()
        if names
    ]
    return Misfit(sum(len(names) for names in differing.values()), "; ".join(texts))


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copy tensors into a module's state, all or none.

    Args:
        module: keeps its device and memory format.
        tensors: parameters and buffers by name.
        source: where they are from, for the message.

    Raises:
        CareError: Some are missing, unexpected or of another shape.
    """
    difference = misfit(module.state_dict(), tensors)
    if difference.differing:
        raise CareError(
            f"{source} is of another architecture: {difference.text}; use the encoder, size and "
            "blocks it was trained with"
        )
    module.load_state_dict(tensors)


def cpu_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU: what is saved in the background does not change.

    They are contiguous, since safetensors refuses channels_last.
    """
    return {
        name: tensor.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for name, tensor in tensors.items()
    }


def save_encoder(path: str | Path, encoder: nn.Module, *, size: ImageSize) -> None:
    """Commit an encoder as one safetensors file, by the names that its network has elsewhere.

    These are torchvision's of a ResNet, and of any other encoder those of the model in it; those of
    a ``ViTEncoder`` are timm's, with the fixed positions as ``pos_embed``.

    Args:
        path: of the file, or its URL.
        encoder: its ``name``, if it has one, goes into the metadata.
        size: of the views that it was trained on, pixels; goes there, too.
    """
    note = {"encoder": getattr(encoder, "name", ""), "size": size}
    metadata = {"care": json.dumps(note)}  # one entry: several are written in any order
    network = encoder.model if isinstance(encoder, TappedEncoder | ViTEncoder) else encoder
    tensors = cpu_copies(network.state_dict())
    if isinstance(encoder, ViTEncoder):
        tensors |= cpu_copies({POSITIONS: encoder.position_table()})
    storage.write_bytes(path, save_tensors(tensors, metadata))


def load_encoder_state(encoder: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copy what ``save_encoder`` or a checkpoint holds into an encoder, all or none.

    Args:
        encoder: keeps its device and memory format.
        tensors: by the encoder's own names, which checkpoints have and files of version 0.1 had, or
            by those of the model in it.
        source: where they are from, for the message.

    Raises:
        CareError: Some are missing, unexpected or of another shape.
    """
    network = encoder
    is_other_naming = encoder.state_dict().keys() != tensors.keys()
    if isinstance(encoder, TappedEncoder | ViTEncoder) and is_other_naming:
        network = encoder.model
    if isinstance(encoder, ViTEncoder) and POSITIONS in tensors:
        # it computes them, of as many patches a side as the table is for
        encoder.grid.fill_(math.isqrt(len(tensors[POSITIONS][0]) - 1))
        tensors = {name: tensor for name, tensor in tensors.items() if name != POSITIONS}
    load_exactly(network, tensors, source=source)


def digest_of(module: nn.Module) -> str:
    """Hex sha256 of a module's parameters and buffers, and of what these do not tell.

    That is the ``variant`` of encoders whose weights fit several networks.
    """
    digest = hashlib.sha256(save_tensors(cpu_copies(module.state_dict())))
    for name, part in module.named_modules():
        if isinstance(part, ResNetEncoder | ColourSplitEncoder) and part.variant:
            digest.update(f"{name}={part.variant};".encode())
    return digest.hexdigest()
