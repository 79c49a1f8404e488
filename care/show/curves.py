"""Figures over the steps of a training, as lines of an SVG with their words."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

# what a line of losses.jsonl may hold, and how it is headed
CURVES = {
    "cnn": "C-stream loss (Eq. 1)",
    "transformer": "T-stream loss (Eq. 3)",
    "attention": "attention supervision (Eq. 4, unweighted)",
    "spread": "spread of the embeddings (1 healthy, 0 collapsed)",
    "knn": "kNN on the way, top-1 %",
    "pixels": "loss of the pixels' classes",
    "agreement": "agreement of neighbours in two views, % (no labels)",
    "rankme": "RankMe, directions that features use (no labels)",
    "lidar": "LiDAR, directions that tell images apart (no labels)",
    "alignment": "alignment of two views, less is better (no labels)",
    "uniformity": "uniformity, less is better (no labels)",
    "classifier": "loss of the boxes' classes",
    "box_reg": "loss of the boxes' places",
    "mask": "loss of the masks",
    "objectness": "loss of the proposals' objectness",
    "rpn_box_reg": "loss of the proposals' places",
}
# px: of a curve, the least distance of whose points is two
WIDTH, HEIGHT = 420, 150
# px: left free above and below a curve
MARGIN = 5


class Curve(NamedTuple):
    """A figure over the steps of a training, as a line in an SVG.

    Attributes:
        title: what it is.
        description: the line in words, for those who do not see it.
        points: as a ``polyline`` has them.
        steps: of the training so far.
        top: value at the upper edge.
        bottom: value at the lower edge.
        last: value of the last point.
    """

    title: str
    description: str
    points: str
    steps: int
    top: float
    bottom: float
    last: float


def curves(losses: Sequence[Mapping[str, float]]) -> list[Curve]:
    """Draw a curve for each figure that is there and not always 0.

    Args:
        losses: lines of losses.jsonl, of all steps from the first.
    """
    drawn = []
    for key, title in CURVES.items():
        # what is measured now and then is not in every line
        values = [(step, line[key]) for step, line in enumerate(losses) if key in line]
        if any(value for _, value in values):
            drawn.append(_curve(title, values, len(losses)))
    return drawn


def _curve(title: str, values: Sequence[tuple[int, float]], steps: int) -> Curve:
    """A line through the means of equal parts of the values, at most one for each two pixels.

    Args:
        title: of the curve.
        values: with the steps at which they stand.
        steps: of the training so far.
    """
    length = max(len(values) * 2 // WIDTH, 1)
    parts = [values[start : start + length] for start in range(0, len(values), length)]
    means = [sum(value for _, value in part) / len(part) for part in parts]
    low, high = min(means), max(means)
    last_step = max(steps - 1, 1)
    scale = (HEIGHT - 2 * MARGIN) / ((high - low) or 1)
    points = []
    for part, mean in zip(parts, means, strict=True):
        step, _ = part[-1]
        points.append(f"{step * WIDTH / last_step:.1f},{MARGIN + (high - mean) * scale:.1f}")
    description = (
        f"{title} over {steps:,} steps: {means[0]:.3g} at first, {means[-1]:.3g} at last,"
        f" between {low:.3g} and {high:.3g}"
    )
    return Curve(title, description, " ".join(points), steps, high, low, means[-1])
