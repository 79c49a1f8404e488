"""Weights from elsewhere into a module: all of them, or an error."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from care.errors import CareError


def misfit(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> tuple[int, str]:
    """How many of ``tensors``, by key and shape, are not those of ``state``, and in words the first ones; (0, "") if all are."""
    reshaped = {name for name in state.keys() & tensors.keys() if state[name].shape != tensors[name].shape}
    missing, unexpected = state.keys() - tensors.keys(), tensors.keys() - state.keys()
    parts = (("missing", sorted(missing)), ("unexpected", sorted(unexpected)), ("of another shape", sorted(reshaped)))
    told = (f"{len(keys)} {what} (first: {', '.join(keys[:3])})" for what, keys in parts if keys)
    return len(missing) + len(unexpected) + len(reshaped), "; ".join(told)


@torch.no_grad()
def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copy ``tensors`` into the module's state: every key and shape must match.

    Raises:
        CareError: naming what is missing, unexpected or of another shape.
    """
    state = module.state_dict()
    differing, told = misfit(state, tensors)
    if differing:
        raise CareError(f"{source} is of another architecture: {told}; use the encoder, size and blocks it was trained with")
    for name, tensor in state.items():
        tensor.copy_(tensors[name])
