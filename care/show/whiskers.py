"""Where a picture of differences has its dots, whiskers and marks: an SVG in a table row each."""

import math
from collections.abc import Sequence
from typing import NamedTuple
from care.show.verdict import Difference, by_pair, signed

MARGIN = 0.06  # of the axis, left free on both sides so that no mark is cut off
MAX_TICKS = 5


class Whisker(NamedTuple):
    """One difference; positions are per cent of the picture's width."""

    task: str
    text: str
    finding: str
    description: str  # for those who do not see the picture
    centre: float
    interval: tuple[float, float] | None  # None where the uncertainty is unknown


class Picture(NamedTuple):
    """Differences by pair of encoders, all on one axis; positions are per cent of its width."""

    pairs: list[tuple[str, list[Whisker]]]  # "ours − other" and the differences
    ticks: list[tuple[float, str]]  # with their labels, percentage points
    zero: float


def picture(compared: Sequence[Difference]) -> Picture:
    """Place differences on an axis that holds zero and every interval.

    Args:
        compared: differences as of ``care.show.verdict.differences``; not empty.

    Returns:
        Positions and words for the page, the pairs of encoders in the order of the verdict.
    """
    values = [0.0]
    for difference in compared:
        ends = (difference.low, difference.points, difference.high)
        values += [value for value in ends if value is not None]
    low, high = min(values), max(values)
    if low == high:  # every difference is exactly zero
        low, high = -1.0, 1.0
    margin = MARGIN * (high - low)
    start, width = low - margin, high - low + 2 * margin

    def position(value: float) -> float:
        return round(100 * (value - start) / width, 2)

    pairs = []
    for pair in by_pair(compared):
        whiskers = []
        for difference in pair:
            interval = None
            if difference.low is not None and difference.high is not None:
                interval = (position(difference.low), position(difference.high))
            whisker = Whisker(
                difference.task,
                difference.text(),
                difference.finding,
                _description(difference),
                position(difference.points),
                interval,
            )
            whiskers.append(whisker)
        pairs.append((f"{pair[0].ours} − {pair[0].other}", whiskers))
    ticks = [(position(tick), signed(tick, "g")) for tick in _ticks(low, high)]
    return Picture(pairs, ticks, position(0))


def _description(difference: Difference) -> str:
    """The picture of one difference in words."""
    name = f"{difference.ours} − {difference.other}, {difference.task}"
    text = f"{name}: {signed(difference.points)} points"
    if difference.low is None or difference.high is None:
        return f"{text}, {difference.finding}"
    interval = f"{signed(difference.low)} to {signed(difference.high)}"
    return f"{text}, 95 % interval {interval}, {difference.finding}"


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most ``MAX_TICKS``, 0 among them."""
    power = 10.0 ** math.floor(math.log10((high - low) / MAX_TICKS))
    for step in (power, 2 * power, 5 * power, 10 * power, 20 * power):
        first, last = math.ceil(low / step), math.floor(high / step)
        if last - first < MAX_TICKS:
            break
    return [number * step for number in range(first, last + 1)]
