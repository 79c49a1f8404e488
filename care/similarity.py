"""How alike the two views' embeddings are: the loss of both streams (Eqs. 1 and 3)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

# a tensor for each view, first those of the two that every objective compares
Embeddings = tuple[Float[Tensor, "b d"], ...]


def unit(x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """Divide each row by its L2 norm.

    Args:
        x: embeddings.

    Returns:
        Unit vectors, in float32 at least: a cosine near 1 has no digits left in bfloat16.
    """
    return nn.functional.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1)


def similarity_loss(online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
    """Mean squared error of unit vectors, each view's online beside the other's target.

    It is 4 − 2 · (cos(online₁, target₂) + cos(online₂, target₁)), the mean over the batch: Eq. 1
    once in each direction, with f₁ online and f₂ target, and the same for Eq. 3.

    Args:
        online: predictor's outputs of both views.
        target: target projector's outputs of both views; they get no gradient.

    Returns:
        A scalar from 0 to 8.

    Source: Eqs. 1 and 3, which print one direction; released code: both.
    """
    cosines = _cosines(online[0], target[1]) + _cosines(online[1], target[0])
    return (4 - 2 * cosines).mean()


def _cosines(online: Float[Tensor, "b d"], target: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    return (unit(online) * unit(target.detach())).sum(1)
