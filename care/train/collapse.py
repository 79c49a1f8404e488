"""The guard against collapse: how far the embeddings are spread, and below what a run has failed."""

from jaxtyping import Float
from torch import Tensor, nn

COLLAPSED = 0.02  # embedding spread below which a run counts as collapsed; independent directions have 1, one direction 0

PATIENCE = (
    20  # steps that the spread must stay below it before the run stops; half-way there it warns
)


def spread(embeddings: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """√d times the mean over channels of the standard deviation of unit embeddings: about 1 when healthy, 0 when collapsed."""
    return (
        nn.functional.normalize(embeddings.detach().float(), dim=1)
        .std(0)
        .mean()
        .mul(embeddings.shape[1] ** 0.5)
    )
