"""MoCo v3: tell the momentum projection of the other view from the batch's others."""

from dataclasses import dataclass
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.heads import mlp_head
from care.objectives.byol import BYOL
from care.similarity import Embeddings, unit


@dataclass(frozen=True)
class MoCoV3(BYOL):
    """Tell the momentum projection of the other view from those of all other images.

    The networks are BYOL's, as MoCo v3 has them for ResNet-50, but for normalised projections.

    Attributes:
        temperature: τ, by which cosines are divided.

    Source: Chen, Xie and He 2021, An empirical study of training self-supervised ViTs.
    """

    temperature: float = 1.0

    def projector(self, inputs: int) -> nn.Module:
        """Make a head of two layers, with batch norm on the outputs."""
        return mlp_head(inputs, hidden=self.hidden, outputs=self.dim, norm=True)

    def loss(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Compute 2τ · (InfoNCE(online₁, target₂) + InfoNCE(online₂, target₁))."""
        both_ways = self._infonce(online[0], target[1]) + self._infonce(online[1], target[0])
        return 2 * self.temperature * both_ways

    def _infonce(
        self, online: Float[Tensor, "b d"], target: Float[Tensor, "b d"]
    ) -> Float[Tensor, ""]:
        logits = unit(online) @ unit(target.detach()).T / self.temperature
        same_image = torch.arange(len(logits), device=logits.device)
        return nn.functional.cross_entropy(logits, same_image)
