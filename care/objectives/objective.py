"""An objective: two heads, a loss, and the kind of pair that the networks come in."""

from dataclasses import dataclass
from typing import ClassVar
from jaxtyping import Float
from torch import Tensor, nn
from care.heads import mlp_head
from care.momentum import MomentumPair, Pair
from care.objectives.criterion import Criterion
from care.similarity import Embeddings


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

    def criterion(self) -> Criterion:
        """Make the loss as a module of the stream.

        By default it is ``loss`` and keeps nothing. A method with a queue, a bank or prototypes
        returns a subclass of ``Criterion`` that has them.
        """
        return Criterion(self.loss)
