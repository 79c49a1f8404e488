"""An objective's loss as a module, with what it keeps from step to step."""

from collections.abc import Callable
from typing import ClassVar
from jaxtyping import Float
from torch import Tensor, nn
from care.similarity import Embeddings

Loss = Callable[..., Float[Tensor, ""]]


class Criterion(nn.Module):
    """A loss of the embeddings of views, to be subclassed where it keeps a state.

    Buffers and parameters are saved with the stream, restored, and moved to its device; parameters
    are trained. On several processes each computes it of the embeddings of all, in the order of the
    processes, so that all keep the same.

    Args:
        loss: that of an objective that keeps nothing.

    Attributes:
        uses_samples: whether ``forward`` wants the numbers of the images, too, as its third
            argument [b]: a bank has a place for each image.
    """

    uses_samples: ClassVar[bool] = False

    def __init__(self, loss: Loss | None = None) -> None:
        super().__init__()
        self._loss = loss

    def forward(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Compute the loss of a batch, see ``Objective.loss``."""
        if self._loss is None:
            raise NotImplementedError
        return self._loss(online, target)

    def check(self, batch_size: int) -> None:
        """Refuse, before the first step, a batch that the method cannot take.

        Args:
            batch_size: images of which the loss is computed at a time, on all processes together.

        Raises:
            CareError: It cannot; the message says which it can.
        """

    def check_set(self, images: int) -> None:
        """Refuse, before the first step, a set that the method cannot learn from.

        Args:
            images: of the set.

        Raises:
            CareError: It cannot; the message says why.
        """

    def after_step(self, parts: int = 1) -> None:
        """Go on to the next step, once the optimizer has moved the weights.

        ``Stream.update`` calls it. By default there is nothing to do.

        Args:
            parts: into which the step's batch was cut, each a call of ``forward``.
        """
