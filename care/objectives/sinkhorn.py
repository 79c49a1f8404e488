"""Soft assignments of images to prototypes, of which each gets its share."""

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def sinkhorn(
    scores: Float[Tensor, "n k"], *, epsilon: float = 0.05, rounds: int = 3
) -> Float[Tensor, "n k"]:
    """Find the assignments near softmax(scores / ε) in which all prototypes weigh alike.

    Args:
        scores: cosines of embeddings and prototypes.
        epsilon: entropy; the smaller, the harder the assignments.
        rounds: of scaling prototypes to 1/k and images to 1/n in turn.

    Returns:
        Rows of sum 1, in float32 at least.

    Source: Cuturi 2013, Sinkhorn distances; Caron et al. 2020, Algorithm 1.
    """
    # of logarithms: the weights of a prototype that nobody is near would all become 0
    weights = scores.to(torch.promote_types(scores.dtype, torch.float32)) / epsilon
    for _ in range(rounds):
        weights = weights - weights.logsumexp(0, keepdim=True)
        weights = weights - weights.logsumexp(1, keepdim=True)
    return weights.exp()
