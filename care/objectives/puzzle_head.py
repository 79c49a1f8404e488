"""The head of patches: one embedding of all patches of an image, in the order that they have."""

from jaxtyping import Float
from torch import Tensor, nn


class PuzzleHead(nn.Module):
    """Each patch through the same layers, then all of an image together through one more.

    Args:
        patch_head: of the pooled features of one patch, [b, inputs] → [b, dim].
        dim: channels of the embeddings, of patches and of images.
        patches: of an image.

    Source: Misra and van der Maaten 2020, Sec. 3.1: g of jigsaw transformations.
    """

    def __init__(self, patch_head: nn.Module, dim: int, patches: int = 9) -> None:
        super().__init__()
        self.patch_head = patch_head
        self.together = nn.Linear(patches * dim, dim)

    def forward(self, features: Float[Tensor, "b n _"]) -> Float[Tensor, "b d"]:
        """Embed images of which the features of patches are given."""
        of_patches = self.patch_head(features.flatten(0, 1))
        embeddings: Tensor = self.together(of_patches.reshape(len(features), -1))
        return embeddings
