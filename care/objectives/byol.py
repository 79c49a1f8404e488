"""BYOL: predict what the momentum encoder projects of the other view."""

from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor, nn
from care.heads import mlp_head
from care.objectives.objective import Objective
from care.similarity import Embeddings, similarity_loss


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
