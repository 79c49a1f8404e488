"""SimCLR: tell the other view of an image from all other images of the batch."""

from dataclasses import dataclass
from typing import ClassVar
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.momentum import Pair, Siamese
from care.objectives.objective import Objective
from care.similarity import Embeddings, unit


@dataclass(frozen=True)
class SimCLR(Objective):
    """Tell the other view of an image from all other images of the batch.

    Attributes:
        temperature: τ, by which cosines are divided.

    Source: Chen et al. 2020, A simple framework for contrastive learning: NT-Xent.
    """

    hidden: int = 2048
    dim: int = 128
    temperature: float = 0.1
    pair: ClassVar[type[Pair]] = Siamese

    def loss(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Compute the mean over the 2·b views of −log(exp(cos⁺/τ) / Σ exp(cos/τ)).

        cos⁺ is the cosine to the other view; the sum is over all views but the view itself.
        """
        views = torch.cat((unit(online[0]), unit(online[1])))
        logits = (views @ views.T / self.temperature).fill_diagonal_(-torch.inf)
        other_view = torch.arange(len(views), device=views.device).roll(len(views) // 2)
        return nn.functional.cross_entropy(logits, other_view)
