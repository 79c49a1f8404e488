"""A curve in a line of text."""

import math
from collections.abc import Sequence

# from the lowest value to the highest
BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Draw values as bars, at most ``width`` of them, each the mean of equal parts.

    Args:
        values: in their order; what is not finite leaves a gap.
        width: characters.

    Returns:
        A bar for each part, between the lowest mean and the highest; equal ones are low.
    """
    count = min(width, len(values))
    means = []
    for number in range(count):
        start, end = (len(values) * edge // count for edge in (number, number + 1))
        means.append(math.fsum(values[start:end]) / (end - start))
    finite = [mean for mean in means if math.isfinite(mean)]
    if not finite:
        return " " * count
    low = min(finite)
    step = (max(finite) - low) / (len(BARS) - 1) or 1.0
    return "".join(
        BARS[round((mean - low) / step)] if math.isfinite(mean) else " " for mean in means
    )
