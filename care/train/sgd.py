"""The optimizer's numbers, and the learning rate of a step."""

from dataclasses import dataclass
import torch
from torch import nn
from shards.bounds import NonNegativeFloat, NonNegativeInt

# of the gradients, in the paper's trainings and in those of its evaluations
MOMENTUM = 0.9


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum 0.9.

    The defaults are the paper's (Sec. 4.1).

    Attributes:
        lr: base learning rate for 256 images, scaled by batch_size / 256.
        warmup: steps of linear warm-up (the paper: 10 epochs).
        weight_decay: on every parameter, as in the released code.
    """

    lr: NonNegativeFloat = 0.05
    warmup: NonNegativeInt = 0
    weight_decay: NonNegativeFloat = 1e-4


def fused_sgd(model: nn.Module, sgd: SGD) -> torch.optim.SGD:
    """Make the optimizer of what a model trains, with one update for all parameters."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(
        parameters, lr=sgd.lr, momentum=MOMENTUM, weight_decay=sgd.weight_decay, fused=True
    )


def set_rate(optimizer: torch.optim.Optimizer, *rates: float) -> None:
    """Set the learning rates of the next step.

    Args:
        optimizer: whose parameter groups get them.
        rates: those of the batch as it is, not of 256 images: one for all groups, or one for each
            in their order.
    """
    groups = optimizer.param_groups
    rate_of_each = rates * len(groups) if len(rates) == 1 else rates
    for group, rate in zip(groups, rate_of_each, strict=True):
        group["lr"] = rate
