"""What an optimizer keeps of each parameter from step to step, as tensors by name, and back.

A slot is called ``PARAMETER/SLOT``, such as ``c.predictor.0.weight/exp_avg``; the momentum of SGD
and its relatives has the parameter's name alone, as in the checkpoints of version 0.1.
"""

from collections.abc import Mapping
from typing import Any
import torch
from torch import Tensor, nn
from care.errors import CareError

MOMENTUM_SLOT = "momentum_buffer"
# what the name of a slot ends in that is a number of Python's
_NUMBER = "/number"


def slots_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every slot of an optimizer, not copied.

    Args:
        model: whose parameters the optimizer moves.
        optimizer: perhaps before its first step, when it has none.

    Raises:
        CareError: A slot is neither a tensor nor a number.
    """
    slots = dict[str, Tensor]()
    for name, parameter in model.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            key = name if slot == MOMENTUM_SLOT else f"{name}/{slot}"
            if isinstance(value, Tensor):
                slots[key] = value
            elif isinstance(value, int | float):
                slots[f"{name}/{slot}{_NUMBER}"] = torch.tensor(value, dtype=_number_type(value))
            elif value is not None:
                raise CareError(
                    f"wanted tensors and numbers as what {type(optimizer).__name__} keeps, got a "
                    f"{type(value).__name__} as the {slot} of {name}; checkpoints hold no other"
                )
    return slots


def restore_slots(
    slots: Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Give an optimizer the slots of an earlier one of its kind.

    Args:
        slots: as ``slots_of`` has them, on any device.
        model: whose parameters the optimizer moves; slots of a parameter's shape get its memory
            format.
        optimizer: loses the slots that it has.
    """
    groups = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for key, tensor in slots.items():
        name, slot = key, MOMENTUM_SLOT
        if key not in parameters:
            name, _, slot = key.removesuffix(_NUMBER).rpartition("/")
        parameter = parameters[name]
        value: Any = _placed(tensor, parameter, groups[parameter])
        if key.endswith(_NUMBER):
            value = tensor.item()
        optimizer.state[parameter][slot] = value


def _placed(tensor: Tensor, parameter: Tensor, group: Mapping[str, Any]) -> Tensor:
    """A slot where the optimizer wants it: beside its parameter, or a step count on the CPU."""
    if tensor.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
    counts_on_device = group.get("fused") or group.get("capturable")
    is_count = tensor.ndim == 0 and not counts_on_device
    return tensor.clone() if is_count else tensor.to(parameter.device, copy=True)


def _number_type(value: float) -> torch.dtype:
    return torch.float64 if isinstance(value, float) else torch.int64
