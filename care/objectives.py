"""What a stream learns by, heads and loss: BYOL's in the paper (Sec. 3.1), others with their papers' defaults; docs/objectives.md."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from care.momentum import MomentumPair, Pair, Siamese

Embeddings = tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]  # of the two views


def unit(x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """L2-normalised rows, never below float32: a cosine near 1 has no digits left in bfloat16."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1)


def similarity_loss(online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
    """Eqs. 1 and 3, symmetric over the views: mean of 4 − 2·(cos(online₁, target₂) + cos(online₂, target₁)); in 0…8."""
    (q1, q2), (k1, k2) = (tuple(map(unit, pair)) for pair in (online, target))
    return (4 - 2 * ((q1 * k2.detach()).sum(1) + (q2 * k1.detach()).sum(1))).mean()


def mlp_head(inputs: int, *, hidden: int = 4096, outputs: int = 256, layers: int = 2, norm: bool = False) -> nn.Sequential:
    """Linear, batch norm, ReLU, …, linear: [b, inputs] → [b, outputs] (Sec. 4.1); ``norm`` adds one more, without scale and shift."""
    blocks: list[nn.Module] = []
    for _ in range(layers - 1):
        blocks += nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)
        inputs = hidden
    blocks.append(nn.Linear(inputs, outputs, bias=not norm))
    return nn.Sequential(*blocks, *[nn.BatchNorm1d(outputs, affine=False)] * norm)


@dataclass(frozen=True)
class Objective:
    """Heads, ``hidden`` wide inside, and loss of a stream whose networks come in a ``pair``; Eq. 4 wants one ``dim`` of both embeddings."""

    hidden: int
    dim: int
    pair: ClassVar[type[Pair]] = MomentumPair
    layers: ClassVar[int] = 2
    norm: ClassVar[bool] = False

    def projector(self, inputs: int) -> nn.Module:
        """Pooled features [b, inputs] → [b, dim], by an ``mlp_head`` of ``layers`` and ``norm``."""
        return mlp_head(inputs, hidden=self.hidden, outputs=self.dim, layers=self.layers, norm=self.norm)

    def predictor(self) -> nn.Module:
        """Online projections [b, dim] → online embeddings [b, dim]; by default there is none."""
        return nn.Identity()

    def loss(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Scalar, of predictor outputs and of target projections without gradient (of a ``Siamese`` the online ones, detached)."""
        raise NotImplementedError


@dataclass(frozen=True)
class BYOL(Objective):
    """Grill et al. 2020, the paper's choice for both streams: Eqs. 1 and 3."""

    hidden: int = 4096
    dim: int = 256

    def predictor(self) -> nn.Module:
        """A head of the projector's shape."""
        return mlp_head(self.dim, hidden=self.hidden, outputs=self.dim)

    loss = staticmethod(similarity_loss)


@dataclass(frozen=True)
class SimSiam(Objective):
    """Chen & He 2021: three-layer projector with normalised outputs, a bottleneck for a predictor; loss in −1…1."""

    hidden: int = 2048
    dim: int = 2048
    bottleneck: int = 512
    pair: ClassVar[type[Pair]] = Siamese
    layers: ClassVar[int] = 3
    norm: ClassVar[bool] = True

    def predictor(self) -> nn.Module:
        """Two layers through the bottleneck."""
        return mlp_head(self.dim, hidden=self.bottleneck, outputs=self.dim)

    def loss(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Mean of −(cos(online₁, target₂) + cos(online₂, target₁)) / 2."""
        return (similarity_loss(online, target) - 4) / 4


@dataclass(frozen=True)
class SimCLR(Objective):
    """Chen et al. 2020: NT-Xent, every other image of the batch in either view is a negative."""

    hidden: int = 2048
    dim: int = 128
    temperature: float = 0.1
    pair: ClassVar[type[Pair]] = Siamese

    def loss(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Mean over the 2·b views of −log(exp(cos⁺/τ) / Σ exp(cos/τ)), the sum over all views but itself."""
        z = torch.cat((unit(online[0]), unit(online[1])))
        logits = (z @ z.T / self.temperature).fill_diagonal_(-torch.inf)
        return F.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(z) // 2))


@dataclass(frozen=True)
class MoCoV3(BYOL):
    """Chen, Xie & He 2021, as for ResNet-50: BYOL's networks, the projections normalised; InfoNCE against the batch's momentum ones."""

    temperature: float = 1.0
    norm: ClassVar[bool] = True

    def loss(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """2τ · (InfoNCE(online₁, target₂) + InfoNCE(online₂, target₁))."""
        (q1, q2), (k1, k2) = (tuple(map(unit, pair)) for pair in (online, target))
        positives = torch.arange(len(q1), device=q1.device)
        first, second = (F.cross_entropy(q @ k.detach().T / self.temperature, positives) for q, k in ((q1, k2), (q2, k1)))
        return 2 * self.temperature * (first + second)


@dataclass(frozen=True)
class BarlowTwins(Objective):
    """Zbontar et al. 2021: the views' cross-correlation matrix is to be the identity; three-layer projector, wide embeddings."""

    hidden: int = 8192
    dim: int = 8192
    redundancy: float = 0.0051
    pair: ClassVar[type[Pair]] = Siamese
    layers: ClassVar[int] = 3

    def loss(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Σᵢ (1 − Cᵢᵢ)² + redundancy · Σᵢ≠ⱼ Cᵢⱼ², C the correlations over the batch between channels of view 1 and of view 2."""
        one, two = (F.batch_norm(z.to(torch.promote_types(z.dtype, torch.float32)), None, None, training=True) for z in online)
        correlations = one.T @ two / len(one)
        off = correlations.square().sum() - (diagonal := correlations.diagonal()).square().sum()
        return (1 - diagonal).square().sum() + self.redundancy * off
