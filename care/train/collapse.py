"""The guard against collapse: how far embeddings are spread, and when a run has failed."""

import json
from itertools import takewhile
from pathlib import Path
from jaxtyping import Float
from torch import Tensor, nn
from care.errors import CareError
from shards.progress import warn

# spread below which a run counts as collapsed; independent directions have 1, one direction 0
COLLAPSED = 0.02
# steps that the spread must stay below it before the run stops; half-way there it warns
PATIENCE = 20


def spread(embeddings: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """How far the directions of embeddings differ: about 1 when healthy, 0 when collapsed.

    It is √d times the mean over channels of the standard deviation of unit embeddings.

    Args:
        embeddings: of one view of a batch, of any length.

    Returns:
        A number without gradient.
    """
    unit = nn.functional.normalize(embeddings.detach().float(), dim=1)
    return unit.std(0).mean().mul(embeddings.shape[1] ** 0.5)


class CollapseGuard:
    """Stops a training whose embeddings stay collapsed.

    It goes on counting after an interruption.

    Args:
        log: the ``losses.jsonl`` of the steps that were taken before.
        warns: whether to print a warning half-way, as one of several processes does.
    """

    def __init__(self, log: Path, *, warns: bool) -> None:
        lines = log.read_text().splitlines()[-PATIENCE:] if log.exists() else []
        newest_first = [json.loads(line)["spread"] for line in reversed(lines)]
        self._low_steps = sum(1 for _ in takewhile(_is_low, newest_first))
        self._warns = warns

    def check(self, step: int, spread: float) -> None:
        """Judge a step by the spread of its embeddings.

        Raises:
            CareError: It was too low for ``PATIENCE`` steps.
        """
        self._low_steps = self._low_steps + 1 if _is_low(spread) else 0
        finding = f"spread {spread:.4f} at step {step}"
        if self._low_steps == PATIENCE // 2 and self._warns:
            warn(f"the embeddings are collapsing: {finding}")
        if self._low_steps >= PATIENCE:
            raise CareError(
                f"the embeddings collapsed: {finding}, below {COLLAPSED} for {self._low_steps} "
                "steps; lower lr, lengthen warmup or raise momentum, then start a new run directory"
            )


def _is_low(spread: float) -> bool:
    return spread < COLLAPSED
