"""A network and its slow copy."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from care.errors import CareError


class MomentumPair(nn.Module):
    """An online network, trained by gradients, and a target network that follows it (Sec. 3.3).

    The target starts as a copy, never gets gradients, and keeps its own batch-norm buffers: it runs in
    train mode on its own activations, and only parameters follow.

    Args:
        online: the network to train; it is used as it is, not copied.
    """

    def __init__(self, online: nn.Module) -> None:
        super().__init__()
        self.online = online
        self.target = deepcopy(online).requires_grad_(False)

    def parameter_pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """Target and online parameters, matched by name.

        Raises:
            CareError: the two networks no longer have the same parameters.
        """
        online, target = dict(self.online.named_parameters()), dict(self.target.named_parameters())
        if {name: p.shape for name, p in online.items()} != {name: p.shape for name, p in target.items()}:
            differing = sorted(online.keys() ^ target.keys()) or [n for n in online if online[n].shape != target[n].shape]
            raise CareError(f"online and target must have equal parameters; they differ at {', '.join(differing[:3])}")
        return list(target.values()), [online[name] for name in target]

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """Move the target: ``target ← momentum · target + (1 − momentum) · online``."""
        update_targets([self], momentum)


class Siamese(nn.Module):
    """One network in both roles, for methods without a momentum encoder (SimSiam, SimCLR, Barlow Twins).

    Args:
        online: the network to train; its own output, detached, is the target.
    """

    def __init__(self, online: nn.Module) -> None:
        super().__init__()
        self.online = online


Pair = MomentumPair | Siamese


@torch.no_grad()
def update_targets(pairs: Sequence[Pair], momentum: float) -> None:
    """``MomentumPair.update`` of many pairs in one fused call; a ``Siamese`` has nothing to move."""
    targets: list[Tensor] = []
    onlines: list[Tensor] = []
    for pair in pairs:
        if isinstance(pair, MomentumPair):
            target, online = pair.parameter_pairs()
            targets += target
            onlines += online
    if targets:
        torch._foreach_lerp_(targets, onlines, 1 - momentum)
