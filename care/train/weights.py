"""Weights: by name and shape into a module, exactly or not at all; an encoder's file; a digest of them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from care.errors import CareError
from shards import storage


def misfit(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> tuple[int, str]:
    """How many of ``tensors``, by key and shape, are not those of ``state``, and in words the first ones; (0, "") if all are."""
    reshaped = {
        name for name in state.keys() & tensors.keys() if state[name].shape != tensors[name].shape
    }
    parts = {
        "missing": state.keys() - tensors.keys(),
        "unexpected": tensors.keys() - state.keys(),
        "of another shape": reshaped,
    }
    told = (
        f"{len(keys)} {what} (first: {', '.join(sorted(keys)[:3])})"
        for what, keys in parts.items()
        if keys
    )
    return sum(map(len, parts.values())), "; ".join(told)


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copy ``tensors`` into the module's state; a ``CareError`` names what is missing, unexpected or of another shape."""
    if told := misfit(module.state_dict(), tensors)[1]:
        raise CareError(
            f"{source} is of another architecture: {told}; use the encoder, size and blocks it was trained with"
        )
    module.load_state_dict(tensors)


def cpu_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # copies: what is saved in the background does not change; contiguous: safetensors refuses channels_last
    return {
        name: t.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for name, t in tensors.items()
    }


def save_encoder(path: str | Path, encoder: nn.Module, *, size: int) -> None:
    """Commit an encoder's weights as one safetensors file: torchvision's key names; its name and training size in the metadata."""
    metadata = {
        "care": json.dumps({"encoder": getattr(encoder, "name", ""), "size": size})
    }  # one: several are written in any order
    storage.write_bytes(path, save_tensors(cpu_copies(encoder.state_dict()), metadata))


def digest_of(module: nn.Module) -> str:
    """Hex sha256 of a module's parameters and buffers."""
    return hashlib.sha256(save_tensors(cpu_copies(module.state_dict()))).hexdigest()
