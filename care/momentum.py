"""A network and its slow copy."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from care.errors import CareError


class MomentumPair(nn.Module):
    """A network trained by gradients and a target, a copy at first, whose parameters follow it; buffers are each one's own (Sec. 3.3)."""

    def __init__(self, online: nn.Module) -> None:
        super().__init__()
        self.online = online
        self.target = deepcopy(online).requires_grad_(False)

    def update(self, momentum: float) -> None:
        """Move the target: ``target ← momentum · target + (1 − momentum) · online``."""
        update_targets([self], momentum)


class Siamese(nn.Module):
    """One network in both roles, its own output, detached, the target: without a momentum encoder (SimSiam, SimCLR, Barlow Twins)."""

    def __init__(self, online: nn.Module) -> None:
        super().__init__()
        self.online = online


Pair = MomentumPair | Siamese


def both(pair: Pair, online: Sequence[Tensor], target: Sequence[Tensor]) -> tuple[list[Any], list[Any]]:
    """Outputs of a pair's networks for each view, the target's without gradient; the online ones are a ``Siamese``'s targets too."""
    outputs = [pair.online(x) for x in online]
    with torch.no_grad():
        return outputs, [pair.target(x) for x in target] if isinstance(pair, MomentumPair) else outputs


@torch.no_grad()
def update_targets(pairs: Sequence[Pair], momentum: float) -> None:
    """``MomentumPair.update`` of many pairs in one fused call; a ``CareError`` if two networks no longer have the same parameters."""
    targets, onlines = list[Tensor](), list[Tensor]()
    for pair in pairs:
        if isinstance(pair, MomentumPair):  # a Siamese has nothing to move
            online, target = dict(pair.online.named_parameters()), dict(pair.target.named_parameters())
            if {name: p.shape for name, p in online.items()} != {name: p.shape for name, p in target.items()}:
                differing = sorted(online.keys() ^ target.keys()) or [n for n in online if online[n].shape != target[n].shape]
                raise CareError(f"online and target must have equal parameters; they differ at {', '.join(differing[:3])}")
            targets += target.values()
            onlines += [online[name] for name in target]
    if targets:
        torch._foreach_lerp_(targets, onlines, 1 - momentum)
