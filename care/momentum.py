"""Pairs of networks: an online one, and the target that it learns from (Sec. 3.3)."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any
import torch
from torch import Tensor, nn
from care.errors import CareError


class Siamese(nn.Module):
    """One network in both roles, its own output, detached, the target: without a momentum encoder (SimSiam, SimCLR, Barlow Twins)."""

    def __init__(self, online: nn.Module) -> None:
        super().__init__()
        self.online = online

    def forward(
        self, online: Sequence[Tensor], target: Sequence[Tensor]
    ) -> tuple[list[Any], list[Any]]:
        """Outputs of both roles for each view; a momentum target's have no gradient, without one they are the online ones again."""
        outputs = [self.online(x) for x in online]
        with torch.no_grad():
            return outputs, [self.target(x) for x in target] if isinstance(
                self, MomentumPair
            ) else outputs


class MomentumPair(Siamese):
    """A network trained by gradients and a target, a copy at first, whose parameters follow it; buffers are each one's own (Sec. 3.3)."""

    def __init__(self, online: nn.Module) -> None:
        super().__init__(online)
        self.target = deepcopy(online).requires_grad_(False)

    def update(self, momentum: float) -> None:
        """Move the target: ``target ← momentum · target + (1 − momentum) · online``."""
        update_targets([self], momentum)


@torch.no_grad()
def update_targets(pairs: Sequence[Siamese], momentum: float) -> None:
    """``MomentumPair.update`` of many pairs in one fused call; a ``CareError`` if two networks no longer have the same parameters."""
    targets, onlines = list[Tensor](), list[Tensor]()
    for pair in (
        pair for pair in pairs if isinstance(pair, MomentumPair)
    ):  # any other has nothing to move
        online, target = dict(pair.online.named_parameters()), dict(pair.target.named_parameters())
        if differing := sorted(online.keys() ^ target.keys()) or [
            n for n in online if online[n].shape != target[n].shape
        ]:
            raise CareError(
                f"online and target must have equal parameters; they differ at {', '.join(differing[:3])}"
            )
        targets += target.values()
        onlines += [online[name] for name in target]
    if targets:
        torch._foreach_lerp_(targets, onlines, 1 - momentum)
