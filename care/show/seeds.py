"""Differences of arms with several seeds: means, and paired differences with intervals.

An arm is one way to pre-train; its runs differ by their seed alone, and two arms' runs of one seed
start from the same encoder and are judged on the same images. Differences are therefore taken seed
by seed, and within a seed draw by draw of resampled images.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from care.show.intervals import CHANCE, NORMAL_95, Finding, finding_of, signed, student_97_5
from care.show.rows import Row, read


class Score(NamedTuple):
    """One figure of one run, in per cent.

    Attributes:
        arm: name of the run's arm, or ``CHANCE``.
        seed: of the run.
        task: that was judged.
        value: the headline measure.
        draws: the same on resampled validation images.
    """

    arm: str
    seed: int
    task: str
    value: float
    draws: tuple[float, ...]


class Summary(NamedTuple):
    """An arm's figure on one task over its seeds, in per cent.

    Attributes:
        arm: its name.
        task: that was judged.
        mean: over the seeds.
        std: standard deviation (n − 1); None with a single seed.
        seeds: their number.
    """

    arm: str
    task: str
    mean: float
    std: float | None
    seeds: int

    def text(self) -> str:
        """Write the mean and, where there is one, the standard deviation."""
        return f"{self.mean:.1f}" if self.std is None else f"{self.mean:.1f} ± {self.std:.1f}"


class PairedDifference(NamedTuple):
    """How far an arm is from the reference on one task, in percentage points.

    Attributes:
        arm: its name.
        reference: name of the arm that it is compared with.
        task: that was judged.
        points: mean of the differences of equal seeds.
        low: end of the 95 % interval; None where neither seeds nor resampled images tell it.
        high: end of the 95 % interval, likewise.
        seeds: number of those that both have.
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
        return finding_of(self.low, self.high)

    def text(self) -> str:
        """Write the difference and, where it is known, its interval."""
        if self.low is None or self.high is None:
            return signed(self.points)
        return f"{signed(self.points)} ({signed(self.low)} … {signed(self.high)})"


def scores(arm: str, seed: int, rows: Iterable[Row]) -> list[Score]:
    """Read off the figures of a run, one for each evaluation, and chance's of attention.

    Chance is what a map without preference would have, such as the objects' share of the pixels.
    It is taken as known: its draws are all the same, although it varies with the images, too.

    Args:
        arm: name of the run's arm.
        seed: of the run.
        rows: its evaluations as in a results.json.
    """
    figures = []
    for result in read(rows):
        value = float(result.measures[result.headline])
        figures.append(Score(arm, seed, result.task, value, tuple(result.resampled)))
        if result.chance is not None:
            chance = float(result.chance)
            draws = (chance,) * len(result.resampled)
            figures.append(Score(CHANCE, seed, result.task, chance, draws))
    return figures


def summaries(figures: Iterable[Score]) -> list[Summary]:
    """Compute mean and standard deviation (n − 1) over the seeds of each arm on each task.

    Args:
        figures: of all runs.

    Returns:
        Arms and tasks in the order in which they come.
    """
    by_arm = dict[tuple[str, str], dict[int, float]]()
    for score in figures:
        by_arm.setdefault((score.arm, score.task), {})[score.seed] = score.value
    summarised = []
    for (arm, task), by_seed in by_arm.items():
        values = list(by_seed.values())
        std = statistics.stdev(values) if len(values) > 1 else None
        summarised.append(Summary(arm, task, statistics.fmean(values), std, len(values)))
    return summarised


def paired_differences(figures: Iterable[Score], reference: str) -> list[PairedDifference]:
    """Compare each arm with the reference on each task, over the seeds that both have.

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
    by_run = {(score.arm, score.task, score.seed): score for score in figures}
    pairs = dict[tuple[str, str], list[tuple[Score, Score]]]()
    for (arm, task, seed), score in by_run.items():
        reference_score = by_run.get((reference, task, seed))
        if reference_score is not None and arm != reference:
            pairs.setdefault((arm, task), []).append((score, reference_score))
    return [_difference(arm, reference, task, pair) for (arm, task), pair in pairs.items()]


def _difference(
    arm: str, reference: str, task: str, pairs: Sequence[tuple[Score, Score]]
) -> PairedDifference:
    """The mean difference of pairs of equal seeds, and its interval where anything tells one."""
    of_seeds = [score.value - reference_score.value for score, reference_score in pairs]
    points = statistics.fmean(of_seeds)
    half_widths = []
    if len(of_seeds) > 1:
        error = statistics.stdev(of_seeds) / math.sqrt(len(of_seeds))
        half_widths.append(student_97_5(len(of_seeds) - 1) * error)
    of_draws = _mean_draws(pairs)
    if len(of_draws) > 1:
        half_widths.append(NORMAL_95 * statistics.stdev(of_draws))
    low = high = None
    if half_widths:
        half_width = math.sqrt(sum(each**2 for each in half_widths))
        low, high = points - half_width, points + half_width
    return PairedDifference(arm, reference, task, points, low, high, len(of_seeds))


def _mean_draws(pairs: Sequence[tuple[Score, Score]]) -> list[float]:
    """Mean over the seeds of the differences on each draw of images, as far as all have it."""
    by_seed = []
    for score, reference_score in pairs:
        draws = zip(score.draws, reference_score.draws, strict=False)
        by_seed.append([draw - reference_draw for draw, reference_draw in draws])
    return [statistics.fmean(of_draw) for of_draw in zip(*by_seed, strict=False)]
