"""The optimizer's numbers, and the learning rate of a step."""

from dataclasses import dataclass
import torch
from shards.bounds import NonNegativeFloat, NonNegativeInt


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum 0.9; the defaults are the paper's (Sec. 4.1).

    Attributes:
        lr: base learning rate for 256 images, scaled by batch_size / 256.
        warmup: steps of linear warm-up (the paper: 10 epochs).
        weight_decay: on every parameter, as in the released code.
    """

    lr: NonNegativeFloat = 0.05
    warmup: NonNegativeInt = 0
    weight_decay: NonNegativeFloat = 1e-4


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
