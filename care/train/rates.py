"""The learning rates of a step, in the groups of an optimizer."""

import torch


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
