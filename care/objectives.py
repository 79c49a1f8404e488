"""What a stream learns by: heads and a loss, BYOL's in the paper (Sec. 3.1); docs/objectives.md."""

from dataclasses import dataclass
from typing import ClassVar
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.heads import mlp_head
from care.momentum import MomentumPair, Siamese
from care.similarity import Embeddings, similarity_loss, unit


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
