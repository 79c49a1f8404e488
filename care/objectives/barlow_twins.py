"""Barlow Twins: make the views' cross-correlation matrix the identity."""

from dataclasses import dataclass
from typing import ClassVar
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.heads import mlp_head
from care.momentum import Pair, Siamese
from care.objectives.objective import Objective
from care.similarity import Embeddings


@dataclass(frozen=True)
class BarlowTwins(Objective):
    """Make the views' cross-correlation matrix the identity, on wide embeddings.

    Attributes:
        redundancy: weight of the entries off the diagonal.

    Source: Zbontar et al. 2021, Barlow Twins: self-supervised learning via redundancy reduction.
    """

    hidden: int = 8192
    dim: int = 8192
    redundancy: float = 0.0051
    pair: ClassVar[type[Pair]] = Siamese

    def projector(self, inputs: int) -> nn.Module:
        """Make a head of three layers."""
        return mlp_head(inputs, hidden=self.hidden, outputs=self.dim, layers=3)

    def loss(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Compute Σᵢ (1 − Cᵢᵢ)² + redundancy · Σᵢ≠ⱼ Cᵢⱼ².

        C holds the correlations over the batch of view 1's channels with view 2's.
        """
        view1, view2 = _standardised(online[0]), _standardised(online[1])
        correlations = view1.T @ view2 / len(view1)
        diagonal = correlations.diagonal()
        off_diagonal = correlations.square().sum() - diagonal.square().sum()
        return (1 - diagonal).square().sum() + self.redundancy * off_diagonal


def _standardised(x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """Channels of mean 0 and variance 1 over the batch, in float32 at least."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return nn.functional.batch_norm(x, None, None, training=True)
