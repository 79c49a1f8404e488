"""SimSiam: predict what the same network projects of the other view."""

from dataclasses import dataclass
from typing import ClassVar
from jaxtyping import Float
from torch import Tensor, nn
from care.heads import mlp_head
from care.momentum import Pair, Siamese
from care.objectives.objective import Objective
from care.similarity import Embeddings, similarity_loss


@dataclass(frozen=True)
class SimSiam(Objective):
    """Predict the same network's projection of the other view, detached.

    Attributes:
        bottleneck: channels between the predictor's layers.

    Source: Chen and He 2021, Exploring simple Siamese representation learning.
    """

    hidden: int = 2048
    dim: int = 2048
    bottleneck: int = 512
    pair: ClassVar[type[Pair]] = Siamese

    def projector(self, inputs: int) -> nn.Module:
        """Make a head of three layers, with batch norm on the outputs."""
        return mlp_head(inputs, hidden=self.hidden, outputs=self.dim, layers=3, norm=True)

    def predictor(self) -> nn.Module:
        """Make a head of two layers through the bottleneck."""
        return mlp_head(self.dim, hidden=self.bottleneck, outputs=self.dim)

    def loss(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Compute the mean of −(cos(online₁, target₂) + cos(online₂, target₁)) / 2, in −1…1."""
        return (similarity_loss(online, target) - 4) / 4
