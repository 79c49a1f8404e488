"""Weights from elsewhere into a module: all of them, or an error."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from care.errors import CareError


@torch.no_grad()
def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copy ``tensors`` into the module's state: every key and shape must match.

    Raises:
        CareError: naming what is missing, unexpected or of another shape.
    """
    state = module.state_dict()
    missing, unexpected = sorted(state.keys() - tensors.keys()), sorted(tensors.keys() - state.keys())
    reshaped = [name for name in state.keys() & tensors.keys() if state[name].shape != tensors[name].shape]
    if missing or unexpected or reshaped:
        parts = (("missing", missing), ("unexpected", unexpected), ("of another shape", sorted(reshaped)))
        found = "; ".join(f"{len(keys)} {what} (first: {keys[0]})" for what, keys in parts if keys)
        raise CareError(f"{source} is of another architecture: {found}; use the encoder, size and blocks it was trained with")
    for name, tensor in state.items():
        tensor.copy_(tensors[name])
