"""InfoMin: tell the key of the other view from a queue, by an image and by its shuffled patches."""

from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor, nn
from care.errors import CareError
from care.objectives.criterion import Criterion
from care.objectives.moco import MoCoV2, QueueContrast
from care.objectives.objective import describe_views
from care.objectives.puzzle_head import PuzzleHead
from care.similarity import Embeddings, unit


@dataclass(frozen=True)
class InfoMin(MoCoV2):
    """Tell the momentum key of the other view by a view and by patches of the image.

    The views are two of the image and nine patches of it (``View(patch=64)``). The patches have a
    head of their own, and the same key and queue.

    Attributes:
        patches_weight: of the loss of the patches; that of the view is the rest of 1.

    Source: Tian et al. 2020, What makes for good views for contrastive learning?
    """

    temperature: float = 0.15
    symmetric: bool = False
    patches_weight: float = 0.5

    def puzzle_head(self, inputs: int) -> nn.Module | None:
        """Make a head of the projector's shape for each patch, and a linear one for all of them."""
        return PuzzleHead(self.projector(inputs), self.dim)

    def check_views(self, images: int, puzzles: int = 0) -> None:
        """Refuse all but two views of an image and one of its patches."""
        if (images, puzzles) != (2, 1):
            raise CareError(
                "InfoMin learns from 2 views of an image and 1 of its patches, got"
                f" {describe_views(images, puzzles)}; View(size=255, patch=64) is one"
            )

    def criterion(self) -> Criterion:
        """Make the contrast with a queue of its own."""
        return PuzzleQueueContrast(self, self.patches_weight)


class PuzzleQueueContrast(QueueContrast):
    """The loss of InfoMin, and its queue.

    Args:
        objective: whose settings these are.
        patches_weight: of the loss of the patches.
    """

    def __init__(self, objective: MoCoV2, patches_weight: float) -> None:
        super().__init__(objective)
        self.patches_weight = patches_weight

    def forward(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Compute the weighted mean of the losses of the views and of the patches."""
        *views, patches = online
        of_views = super().forward(tuple(views), target)
        of_patches = self._contrast(patches, unit(target[1].detach()))
        return (1 - self.patches_weight) * of_views + self.patches_weight * of_patches
