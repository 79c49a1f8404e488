"""What a stream learns by, a pair of networks, heads, loss: BYOL's in the paper (Sec. 3.1), others by their papers; docs/objectives.md."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.errors import CareError

Embeddings = tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]  # of the two views


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


def unit(x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """L2-normalised rows, never below float32: a cosine near 1 has no digits left in bfloat16."""
    return nn.functional.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1)


def similarity_loss(online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
    """Eqs. 1 and 3, symmetric over the views: mean of 4 − 2·(cos(online₁, target₂) + cos(online₂, target₁)); in 0…8."""
    one, two = (
        (unit(q) * unit(k.detach())).sum(1) for q, k in zip(online, reversed(target), strict=True)
    )
    return (4 - 2 * (one + two)).mean()


def mlp_head(
    inputs: int, *, hidden: int = 4096, outputs: int = 256, layers: int = 2, norm: bool = False
) -> nn.Sequential:
    """Linear, batch norm, ReLU, …, linear: [b, inputs] → [b, outputs] (Sec. 4.1); ``norm`` adds one more, without scale and shift."""
    widths = [inputs, *[hidden] * (layers - 1)]
    blocks = [
        part
        for n in widths[:-1]
        for part in (nn.Linear(n, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True))
    ]
    return nn.Sequential(
        *blocks,
        nn.Linear(widths[-1], outputs, bias=not norm),
        *[nn.BatchNorm1d(outputs, affine=False)] * norm,
    )


@dataclass(frozen=True)
class Objective:
    """Heads, ``hidden`` wide inside, and loss of a stream whose networks come in a ``pair``; Eq. 4 wants one ``dim`` of both embeddings."""

    hidden: int = 4096
    dim: int = 256
    pair: ClassVar[type[Siamese]] = MomentumPair
    layers, norm, predicts, bottleneck = 2, False, False, 0

    def projector(self, inputs: int) -> nn.Module:
        """Pooled features [b, inputs] → [b, dim], by an ``mlp_head`` of ``layers`` and ``norm``."""
        return mlp_head(
            inputs, hidden=self.hidden, outputs=self.dim, layers=self.layers, norm=self.norm
        )

    def predictor(self) -> nn.Module:
        """Online projections [b, dim] → online embeddings [b, dim], if it ``predicts``, with a ``bottleneck`` or as the projector's."""
        return (
            mlp_head(self.dim, hidden=self.bottleneck or self.hidden, outputs=self.dim)
            if self.predicts
            else nn.Identity()
        )

    def loss(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Scalar, of predictor outputs and of target projections without gradient (of a ``Siamese`` the online ones, detached)."""
        raise NotImplementedError


class BYOL(Objective):
    """Grill et al. 2020, the paper's choice for both streams: Eqs. 1 and 3."""

    predicts = True
    loss = staticmethod(similarity_loss)


@dataclass(frozen=True)
class SimSiam(Objective):
    """Chen & He 2021: three-layer projector with normalised outputs, a bottleneck for a predictor; loss in −1…1."""

    hidden: int = 2048
    dim: int = 2048
    bottleneck: int = 512
    pair, layers, norm, predicts = Siamese, 3, True, True

    def loss(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Mean of −(cos(online₁, target₂) + cos(online₂, target₁)) / 2."""
        return (similarity_loss(online, target) - 4) / 4


@dataclass(frozen=True)
class SimCLR(Objective):
    """Chen et al. 2020: NT-Xent, every other image of the batch in either view is a negative."""

    hidden: int = 2048
    dim: int = 128
    temperature: float = 0.1
    pair = Siamese

    def loss(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Mean over the 2·b views of −log(exp(cos⁺/τ) / Σ exp(cos/τ)), the sum over all views but itself."""
        z = torch.cat((unit(online[0]), unit(online[1])))
        logits = (z @ z.T / self.temperature).fill_diagonal_(-torch.inf)
        return nn.functional.cross_entropy(
            logits, torch.arange(len(z), device=z.device).roll(len(z) // 2)
        )


@dataclass(frozen=True)
class MoCoV3(BYOL):
    """Chen, Xie & He 2021, as for ResNet-50: BYOL's networks, the projections normalised; InfoNCE against the batch's momentum ones."""

    temperature: float = 1.0
    norm = True

    def loss(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """2τ · (InfoNCE(online₁, target₂) + InfoNCE(online₂, target₁))."""
        logits = (
            unit(q) @ unit(k.detach()).T / self.temperature
            for q, k in zip(online, reversed(target), strict=True)
        )
        one, two = (
            nn.functional.cross_entropy(each, torch.arange(len(each), device=each.device))
            for each in logits
        )
        return 2 * self.temperature * (one + two)


@dataclass(frozen=True)
class BarlowTwins(Objective):
    """Zbontar et al. 2021: the views' cross-correlation matrix is to be the identity; three-layer projector, wide embeddings."""

    hidden: int = 8192
    dim: int = 8192
    redundancy: float = 0.0051
    pair, layers = Siamese, 3

    def loss(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Σᵢ (1 − Cᵢᵢ)² + redundancy · Σᵢ≠ⱼ Cᵢⱼ², C the correlations over the batch between channels of view 1 and of view 2."""
        one, two = (
            nn.functional.batch_norm(
                z.to(torch.promote_types(z.dtype, torch.float32)), None, None, training=True
            )
            for z in online
        )
        correlations = one.T @ two / len(one)
        off = correlations.square().sum() - (diagonal := correlations.diagonal()).square().sum()
        return (1 - diagonal).square().sum() + self.redundancy * off
