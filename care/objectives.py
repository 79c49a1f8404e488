"""What a stream learns by: two heads and a loss.

The paper's is BYOL, for both streams (Sec. 3.1). The others are here because the T-stream and its
supervision work beside any of them; docs/objectives.md shows how, and how to write one.

An objective is a frozen value: its ``repr`` says all that it is, and goes into a run's settings.
"""

from dataclasses import dataclass
from typing import ClassVar
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.heads import mlp_head
from care.momentum import MomentumPair, Pair, Siamese
from care.similarity import Embeddings, similarity_loss, unit


@dataclass(frozen=True)
class Objective:
    """Heads and loss of a stream, to be subclassed for a method of your own.

    Attributes:
        hidden: channels between the layers of the heads.
        dim: channels of the embeddings; Eq. 4 wants the same of both streams.
        pair: kind of pair that the stream's networks come in.
    """

    hidden: int = 4096
    dim: int = 256
    pair: ClassVar[type[Pair]] = MomentumPair

    def projector(self, inputs: int) -> nn.Module:
        """Make the head of both networks: pooled features [b, inputs] → [b, dim]."""
        return mlp_head(inputs, hidden=self.hidden, outputs=self.dim)

    def predictor(self) -> nn.Module:
        """Make the online network's second head: [b, dim] → [b, dim].

        By default there is none: it is the identity.
        """
        return nn.Identity()

    def loss(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Compute the loss of a batch.

        Args:
            online: predictor's outputs of both views, with gradient.
            target: target projector's outputs of both views, without gradient; of a ``Siamese``
                the online projector's, detached.

        Returns:
            A scalar.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class BYOL(Objective):
    """Predict the momentum encoder's projection of the other view: the paper's choice.

    Source: Eqs. 1 and 3; Grill et al. 2020, Bootstrap your own latent.
    """

    def predictor(self) -> nn.Module:
        """Make a head of the projector's shape."""
        return mlp_head(self.dim, hidden=self.hidden, outputs=self.dim)

    def loss(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Take ``care.similarity_loss``, in 0…8."""
        return similarity_loss(online, target)


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
