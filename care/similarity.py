"""The similarity of the two views' embeddings (Eqs. 1 and 3)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

Embeddings = tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]  # of the two views


def unit(x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """L2-normalised rows, never below float32: a cosine near 1 has no digits left in bfloat16."""
    return nn.functional.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1)


def similarity_loss(online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
    """Eqs. 1 and 3, symmetric over the views: mean of 4 − 2·(cos(online₁, target₂) + cos(online₂, target₁)); in 0…8."""
    one, two = (
        (unit(q) * unit(k.detach())).sum(1) for q, k in zip(online, reversed(target), strict=True)
    )
    return (4 - 2 * (one + two)).mean()
