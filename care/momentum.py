"""Pairs of networks: one trained by gradients, and the target that it learns from.

A pair knows what its two roles compute and what of the target follows the online network. A stream
has one of encoders or transformers, and one of projectors; it does not know which kind they are.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Protocol, runtime_checkable
import torch
from torch import Tensor, nn
from care.errors import CareError


@runtime_checkable
class Pair(Protocol):
    """A module that is a network in two roles.

    Name it as a base of a pair of your own: since Python 3.12 a check of types at run time does not
    see that a module's submodules are its attributes.

    Attributes:
        online: the network that gradients train.
    """

    online: nn.Module

    def __init__(self, online: nn.Module) -> None: ...

    def __call__(self, online: Sequence[Any], target: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Compute what both roles give.

        Args:
            online: inputs of the online network, one for each view. Each goes through by itself,
                so that batch norm sees one view at a time.
            target: the target's inputs, those of the same views or of the first ones alone.

        Returns:
            Outputs of the online network and of the target, one for each view.
        """
        ...

    def followers(self) -> list[tuple[Tensor, Tensor]]:
        """List the target's parameters, each with the online one that it follows."""
        ...


class Siamese(nn.Module, Pair):
    """One network in both roles, for methods without a momentum encoder.

    SimSiam, SimCLR and Barlow Twins are such. What the target gives is what the online network
    gives, computed once; whoever uses it detaches it.

    Args:
        online: the network; it is used as it is, not copied.
    """

    def __init__(self, online: nn.Module) -> None:
        super().__init__()
        self.online = online

    def forward(self, online: Sequence[Any], target: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Give the online inputs' outputs, and as the target's the first of the same ones.

        Of the target's inputs only their number counts.
        """
        outputs = [self.online(view) for view in online]
        return outputs, outputs[: len(target)]

    def followers(self) -> list[tuple[Tensor, Tensor]]:
        """List nothing: there is no second network."""
        return []


class MomentumPair(nn.Module, Pair):
    """A network, and a slow copy of it as target.

    The target starts as a copy and gets no gradients. Its parameters follow the online ones, its
    buffers do not: it runs in train mode, so that its batch norms normalise by, and keep, the
    statistics of its own activations.

    Args:
        online: the network to train; it is used as it is, not copied.

    Source: Sec. 3.3; released code, also of the buffers.
    """

    def __init__(self, online: nn.Module) -> None:
        super().__init__()
        self.online = online
        self.target = deepcopy(online).requires_grad_(False)

    def forward(self, online: Sequence[Any], target: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Give the outputs of both networks, the target's without gradient."""
        # first, while nothing is kept for a backward pass: its own maps are gone by then
        with torch.no_grad():
            target_outputs = [self.target(view) for view in target]
        online_outputs = [self.online(view) for view in online]
        return online_outputs, target_outputs

    def followers(self) -> list[tuple[Tensor, Tensor]]:
        """List the target's parameters, each with the online one of its name.

        Raises:
            CareError: The networks no longer have the same parameters; some that differ are named.
        """
        online = dict(self.online.named_parameters())
        target = dict(self.target.named_parameters())
        differing = sorted(online.keys() ^ target.keys())
        if not differing:
            differing = [name for name in online if online[name].shape != target[name].shape]
        if differing:
            raise CareError(
                "online and target must have equal parameters; they differ at"
                f" {', '.join(differing[:3])}"
            )
        return [(parameter, online[name]) for name, parameter in target.items()]

    def update(self, momentum: float) -> None:
        """Move the target: target ← momentum · target + (1 − momentum) · online.

        Args:
            momentum: the coefficient τ, see ``care.momentum_at``.
        """
        update_targets([self], momentum)


@torch.no_grad()
def update_targets(pairs: Sequence[Pair], momentum: float) -> None:
    """Move the targets of many pairs in one fused call.

    A ``Siamese`` has nothing to move.

    Args:
        pairs: of all streams.
        momentum: the coefficient τ, see ``care.momentum_at``.

    Raises:
        CareError: Two networks no longer have the same parameters.
    """
    targets = list[Tensor]()
    onlines = list[Tensor]()
    for pair in pairs:
        for target, online in pair.followers():
            targets.append(target)
            onlines.append(online)
    if targets:
        torch._foreach_lerp_(targets, onlines, 1 - momentum)
