"""Whether measures without labels rank encoders as scores with labels do, such as checkpoints."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple
from care.errors import CareError
from care.show.groups import Group, grouped
from care.show.rows import LABEL_FREE, LOSSES, Row, read

# of fewer encoders an order says nothing
LEAST_ENCODERS = 3


class RankCorrelation(NamedTuple):
    """How alike a label-free measure and a score rank encoders.

    Attributes:
        task: label of the score.
        quality: label of the group whose measure it is.
        measure: its name. Where less of it is better its order is turned, so that 1 always means
            the order of the score, 0 none, −1 the contrary.
        encoders: that have both.
        kendall: τ-b, the share of pairs in the same order less that of pairs in the other; None
            where one of both is equal for all.
        spearman: ρ, the correlation of the ranks.
    """

    task: str
    quality: str
    measure: str
    encoders: int
    kendall: float | None
    spearman: float | None


def rank_correlations(rows: Sequence[Row]) -> list[RankCorrelation]:
    """Compare the orders in which measures and scores put encoders.

    Encoders are the same by the digest of their weights.

    Args:
        rows: evaluations as in results.json; those that others report take no part.

    Returns:
        For each score, each group of label-free measures and each of these measures one.

    Raises:
        CareError: No three encoders have both.
    """
    groups = [group for of_task in grouped(read(rows)).values() for group in of_task]
    measured_here = [group for group in groups if not group.source]
    qualities = [group for group in measured_here if not group.results[0].is_score]
    scores = [group for group in measured_here if group.results[0].is_score]
    correlations = []
    for score in scores:
        for quality in qualities:
            correlations += _correlations(score, quality)
    if not correlations:
        raise CareError(
            f"wanted {LEAST_ENCODERS} encoders that `care evaluate quality` and another evaluation"
            f" have judged, got {len(qualities)} groups of the former and {len(scores)} of others;"
            " judge the checkpoints of a run (care pretrain --keep-every) by both"
        )
    return correlations


def _correlations(score: Group, quality: Group) -> list[RankCorrelation]:
    """Those of one score and the measures of one group."""
    headline = score.results[0].headline
    values = _values(score, headline)
    correlations = []
    for measure in LABEL_FREE:
        of_measure = _values(quality, measure)
        encoders = [encoder for encoder in values if encoder in of_measure]
        if len(encoders) < LEAST_ENCODERS:
            continue
        sign = -1 if measure in LOSSES else 1
        first = [values[encoder] for encoder in encoders]
        second = [sign * of_measure[encoder] for encoder in encoders]
        correlations.append(
            RankCorrelation(
                task=score.label,
                quality=quality.label,
                measure=measure,
                encoders=len(encoders),
                kendall=kendall(first, second),
                spearman=spearman(first, second),
            )
        )
    return correlations


def _values(group: Group, measure: str) -> dict[str, float]:
    """A measure of a group's results by the digest of their encoder."""
    return {
        result.digests["encoder"]: result.measures[measure]
        for result in group.results
        if "encoder" in result.digests and measure in result.measures
    }


def kendall(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's τ-b of two figures of the same things.

    Args:
        first: of each thing one.
        second: of each thing the other.

    Returns:
        Between −1 and 1; None where one of both is equal for all.
    """
    agreeing = pairs_of_first = pairs_of_second = 0
    for i in range(len(first)):
        for j in range(i):
            of_first = _sign(first[i] - first[j])
            of_second = _sign(second[i] - second[j])
            agreeing += of_first * of_second
            pairs_of_first += of_first != 0
            pairs_of_second += of_second != 0
    pairs = math.sqrt(pairs_of_first * pairs_of_second)
    return agreeing / pairs if pairs else None


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's ρ of two figures of the same things, as ``kendall``."""
    try:
        return statistics.correlation(_ranks(first), _ranks(second))
    except statistics.StatisticsError:
        return None


def _ranks(values: Sequence[float]) -> list[float]:
    """The place of each value among all; equal ones share the mean of theirs."""
    return [
        sum(other < value for other in values) + sum(other == value for other in values) / 2
        for value in values
    ]


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
