"""Where a picture of differences has its dots, whiskers and marks.

Each difference is an SVG in a row of a table, so that its numbers stand beside it as text.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple
from care.show.comparison import Difference, by_pair
from care.show.intervals import Finding, signed

# of the axis, left free on both sides so that no mark is cut off
MARGIN = 0.06
MAX_TICKS = 5


class Whisker(NamedTuple):
    """One difference, with positions in per cent of the picture's width.

    Attributes:
        task: that is compared.
        text: the difference and its uncertainty.
        finding: what the interval lets one say.
        description: the picture in words, for those who do not see it.
        centre: position of the difference.
        interval: positions of its ends; None where the uncertainty is unknown.
    """

    task: str
    text: str
    finding: Finding
    description: str
    centre: float
    interval: tuple[float, float] | None


class Picture(NamedTuple):
    """Differences by pair of encoders on one axis, with positions in per cent of its width.

    Attributes:
        pairs: "ours − other" and the differences.
        ticks: positions with their labels, percentage points.
        zero: position of no difference.
    """

    pairs: list[tuple[str, list[Whisker]]]
    ticks: list[tuple[float, str]]
    zero: float


class Axis(NamedTuple):
    """Percentage points from left to right.

    Attributes:
        low: the least value.
        high: the greatest value.
    """

    low: float
    high: float

    def position(self, value: float) -> float:
        """Place a value, in per cent of the width with its margins."""
        margin = MARGIN * (self.high - self.low)
        start = self.low - margin
        width = self.high - self.low + 2 * margin
        return round(100 * (value - start) / width, 2)

    def ticks(self) -> list[tuple[float, str]]:
        """Choose round numbers, at most ``MAX_TICKS`` and 0 among them: positions and labels."""
        power = 10.0 ** math.floor(math.log10((self.high - self.low) / MAX_TICKS))
        for step in (power, 2 * power, 5 * power, 10 * power, 20 * power):
            first = math.ceil(self.low / step)
            last = math.floor(self.high / step)
            if last - first < MAX_TICKS:
                break
        values = [number * step for number in range(first, last + 1)]
        return [(self.position(value), signed(value, "g")) for value in values]


def picture(compared: Sequence[Difference]) -> Picture:
    """Place differences on an axis that holds zero and every interval.

    Args:
        compared: differences as of ``care.show.comparison.differences``; not empty.

    Returns:
        Positions and words for the page, the pairs of encoders in the order of the verdict.
    """
    axis = _axis(compared)
    pairs = []
    for pair in by_pair(compared):
        title = f"{pair[0].ours} − {pair[0].other}"
        pairs.append((title, [_whisker(difference, axis) for difference in pair]))
    return Picture(pairs, axis.ticks(), axis.position(0))


def _axis(compared: Sequence[Difference]) -> Axis:
    """The shortest axis for zero and every interval."""
    values = [0.0]
    for difference in compared:
        ends = (difference.low, difference.points, difference.high)
        values += [value for value in ends if value is not None]
    low, high = min(values), max(values)
    # equal where every difference is exactly zero
    return Axis(low, high) if low < high else Axis(-1.0, 1.0)


def _whisker(difference: Difference, axis: Axis) -> Whisker:
    """A difference with its place on the axis."""
    interval = None
    if difference.low is not None and difference.high is not None:
        interval = (axis.position(difference.low), axis.position(difference.high))
    return Whisker(
        task=difference.task,
        text=difference.text(),
        finding=difference.finding,
        description=_description(difference),
        centre=axis.position(difference.points),
        interval=interval,
    )


def _description(difference: Difference) -> str:
    """The picture of one difference in words."""
    name = f"{difference.ours} − {difference.other}, {difference.task}"
    text = f"{name}: {signed(difference.points)} points"
    if difference.low is None or difference.high is None:
        return f"{text}, {difference.finding}"
    interval = f"{signed(difference.low)} to {signed(difference.high)}"
    return f"{text}, 95 % interval {interval}, {difference.finding}"
