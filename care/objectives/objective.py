"""An objective: two heads, a loss, and the kind of pair that the networks come in."""

from dataclasses import dataclass
from typing import ClassVar
from jaxtyping import Float
from torch import Tensor, nn
from care.errors import CareError
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
        branches: number of networks in the encoder, whose features are beside each other.
    """

    hidden: int = 4096
    dim: int = 256
    pair: ClassVar[type[Pair]] = MomentumPair
    branches: ClassVar[int] = 1

    def projector(self, inputs: int) -> nn.Module:
        """Make the head of both networks: pooled features [b, inputs] → [b, dim]."""
        return mlp_head(inputs, hidden=self.hidden, outputs=self.dim)

    def predictor(self) -> nn.Module:
        """Make the online network's second head: [b, dim] → [b, dim].

        By default there is none: it is the identity.
        """
        return nn.Identity()

    def puzzle_head(self, inputs: int) -> nn.Module | None:
        """Make the head of patches: pooled features [b, 9, inputs] → [b, dim].

        By default there is none: patches are not learned from.
        """
        return None

    def check_views(self, images: int, puzzles: int = 0) -> None:
        """Refuse views of an image that the method does not learn from.

        By default it learns from two.

        Args:
            images: number of views that are one image each.
            puzzles: number of views that are patches of an image, see ``care.train.View``.

        Raises:
            CareError: It does not; the message says what it wants.
        """
        if (images, puzzles) != (2, 0):
            raise CareError(
                f"{type(self).__name__} learns from 2 views of an image, got "
                f"{describe_views(images, puzzles)}; SwAV takes small crops beside the two"
            )

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


def describe_views(images: int, puzzles: int) -> str:
    """Numbers of views in words, for messages."""
    if not puzzles:
        return str(images)
    return f"{images} and {puzzles} of patches"
