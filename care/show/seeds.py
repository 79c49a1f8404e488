"""What several seeds of several arms say: means, paired differences with intervals, a verdict.

An arm is one way to pre-train; its runs differ by their seed alone, and two arms' runs of one seed
start from the same encoder and are judged on the same images. Differences are therefore taken seed
by seed, and within a seed draw by draw of resampled images.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from operator import sub
from typing import Literal, NamedTuple
from care.show.groups import Row
from care.show.verdict import CHANCE, HEADLINES, NORMAL_95, signed

# 97.5 % quantiles of Student's t for 1 … 10 degrees of freedom; beyond them a series is as exact
STUDENT_97_5 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
_NORMAL_97_5 = 1.959964
Finding = Literal["ahead", "behind", "not distinguishable", "uncertainty unknown"]


class Score(NamedTuple):
    """One figure of one run, and the same on resampled validation images, in per cent."""

    arm: str
    seed: int
    task: str
    value: float
    draws: tuple[float, ...]


class Summary(NamedTuple):
    """An arm's figure on one task over its seeds; the deviation is None with a single seed."""

    arm: str
    task: str
    mean: float
    std: float | None
    seeds: int

    def text(self) -> str:
        """The mean and, where there is one, the standard deviation."""
        return f"{self.mean:.1f}" if self.std is None else f"{self.mean:.1f} ± {self.std:.1f}"


class PairedDifference(NamedTuple):
    """How far an arm is from the reference on one task, in percentage points.

    The ends of the 95 % interval are None where neither seeds nor resampled images tell them.
    """

    arm: str
    reference: str
    task: str
    points: float
    low: float | None
    high: float | None
    seeds: int

    @property
    def finding(self) -> Finding:
        """What the interval lets one say of the arm."""
        if self.low is None or self.high is None:
            return "uncertainty unknown"
        if self.low > 0:
            return "ahead"
        if self.high < 0:
            return "behind"
        return "not distinguishable"

    def text(self) -> str:
        """The difference and, where it is known, its interval."""
        if self.low is None or self.high is None:
            return signed(self.points)
        return f"{signed(self.points)} ({signed(self.low)} … {signed(self.high)})"


def scores(arm: str, seed: int, rows: Iterable[Row]) -> list[Score]:
    """The figures of a run, one for each evaluation; attention also gives those of chance.

    Chance is what a map without preference would have, such as the objects' share of the pixels.
    It is taken as known: its draws are all the same, although it varies with the images, too.

    Args:
        arm: name of the run's arm.
        seed: of the run.
        rows: its evaluations as in a results.json.
    """
    found = []
    for row in rows:
        measure = next(name for name in HEADLINES if row.get(name) is not None)
        draws = tuple(row.get("resampled") or ())
        found.append(Score(arm, seed, row["task"], float(row[measure]), draws))
        chance = row.get("chance", row.get("area"))
        if chance is not None:
            draws_of_chance = (float(chance),) * len(draws)
            found.append(Score(CHANCE, seed, row["task"], float(chance), draws_of_chance))
    return found


def summaries(figures: Iterable[Score]) -> list[Summary]:
    """Mean and standard deviation (n − 1) over the seeds of each arm on each task.

    Args:
        figures: of all runs.

    Returns:
        Arms and tasks in the order in which they come.
    """
    values = dict[tuple[str, str], dict[int, float]]()
    for score in figures:
        values.setdefault((score.arm, score.task), {})[score.seed] = score.value
    found = []
    for (arm, task), by_seed in values.items():
        of_seeds = [*by_seed.values()]
        std = statistics.stdev(of_seeds) if len(of_seeds) > 1 else None
        found.append(Summary(arm, task, statistics.fmean(of_seeds), std, len(of_seeds)))
    return found


def paired_differences(figures: Iterable[Score], reference: str) -> list[PairedDifference]:
    """How far each arm is from the reference on each task, over the seeds that both have.

    With d_s the difference of seed s, of n seeds, and D_b the mean over the seeds of the
    differences on the b-th draw of images, the interval is d̄ ± √(h_seeds² + h_images²), where

        h_seeds = t(n − 1; 97.5 %) · std_s(d_s) / √n, with n ≥ 2; 0 of a single seed,
        h_images = 1.96 · std_b(D_b); 0 without draws.

    All seeds are judged on the same images, so more seeds make the first term smaller, but not the
    second. Each alone is the usual interval. Together they are on the safe side: what an image
    does to a single seed counts in both. Nothing is corrected for the number of arms.

    Args:
        figures: of all runs.
        reference: name of the arm from which the others are.

    Returns:
        In the order of the figures; none on tasks that the reference lacks, and none of arms that
        share no seed with it.
    """
    by_place = {(score.arm, score.task, score.seed): score for score in figures}
    pairs = dict[tuple[str, str], list[tuple[Score, Score]]]()
    for (arm, task, seed), score in by_place.items():
        other = by_place.get((reference, task, seed))
        if other is not None and arm != reference:
            pairs.setdefault((arm, task), []).append((score, other))
    return [_difference(arm, reference, task, both) for (arm, task), both in pairs.items()]


def seeds_verdict(differences: Sequence[PairedDifference]) -> str:
    """Task by task, which arms are ahead of the reference, which behind, which nobody can tell.

    Args:
        differences: of ``paired_differences``.

    Returns:
        A line for each task, then one on what the intervals cover; of no differences, that.
    """
    if not differences:
        return "No arm shares a finished seed with the reference: nothing can be compared yet."
    by_task = dict[str, list[PairedDifference]]()
    for difference in differences:
        by_task.setdefault(difference.task, []).append(difference)
    return "\n".join([*(_sentence(task, of) for task, of in by_task.items()), _caveat(differences)])


def student_97_5(freedom: int) -> float:
    """The 97.5 % quantile of Student's t distribution.

    Source: Abramowitz and Stegun 26.7.5, from 11 degrees of freedom on exact to 1e-4.

    Args:
        freedom: degrees of freedom, at least 1.
    """
    if freedom <= len(STUDENT_97_5):
        return STUDENT_97_5[freedom - 1]
    z = _NORMAL_97_5
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def _difference(
    arm: str,
    reference: str,
    task: str,
    both: Sequence[tuple[Score, Score]],
) -> PairedDifference:
    """The mean difference of pairs of equal seeds, and its interval where anything tells one."""
    of_seeds = [ours.value - other.value for ours, other in both]
    points = statistics.fmean(of_seeds)
    squares = []
    if len(of_seeds) > 1:
        error = statistics.stdev(of_seeds) / math.sqrt(len(of_seeds))
        squares.append((student_97_5(len(of_seeds) - 1) * error) ** 2)
    by_seed = [map(sub, ours.draws, other.draws) for ours, other in both]
    by_draw = [statistics.fmean(of_draw) for of_draw in zip(*by_seed, strict=False)]
    if len(by_draw) > 1:
        squares.append((NORMAL_95 * statistics.stdev(by_draw)) ** 2)
    if not squares:
        return PairedDifference(arm, reference, task, points, None, None, len(of_seeds))
    half = math.sqrt(sum(squares))
    ends = (points - half, points + half)
    return PairedDifference(arm, reference, task, points, *ends, len(of_seeds))


def _sentence(task: str, differences: Sequence[PairedDifference]) -> str:
    """What the differences on one task say, those with the same finding together."""
    by_finding = dict[Finding, list[str]]()
    for difference in differences:
        text = f"{difference.arm} {difference.text()}"
        by_finding.setdefault(difference.finding, []).append(text)
    reference = differences[0].reference
    leads: dict[Finding, str] = {
        "ahead": f"ahead of {reference}",
        "behind": f"behind {reference}",
        "not distinguishable": f"not distinguishable from {reference}",
        "uncertainty unknown": f"minus {reference}, of unknown uncertainty",
    }
    clauses = [f"{leads[of]}: {', '.join(by_finding[of])}" for of in leads if of in by_finding]
    return f"{task}: {'; '.join(clauses)}."


def _caveat(differences: Sequence[PairedDifference]) -> str:
    """What the intervals cover, and what they do not."""
    fewest = min(difference.seeds for difference in differences)
    if fewest > 1:
        return (
            f"Points, with 95 % intervals of seeds (paired, at least {fewest}) and of resampled"
            " validation images; they are not corrected for the number of comparisons."
        )
    return (
        "Points, with 95 % intervals of resampled validation images; where an arm has one seed,"
        " another seed of pre-training may move them further: give more with --seeds."
    )
