"""Differences of encoders that were judged alike, each pre-trained once.

Every figure is a difference of two encoders on one task, with the uncertainty that the validation
images and the seeds of the evaluation leave. It is computed from the rows of a results.json alone,
so that a page, a terminal and a file of any age say the same.
"""

import math
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple
from care.show.groups import Group, grouped
from care.show.intervals import CHANCE, NORMAL_95, Finding, finding_of, signed
from care.show.rows import Result, Row, read

# how encoders are called that were trained by CARE, with another objective, or without a T-stream
_CARE = "CARE"
_WITH = "CARE with "
_ALONE = " alone"
_C_STREAM = "C-stream alone"
# percentage points; below it is the rounding of equal draws
LEAST_ERROR = 1e-6


class Difference(NamedTuple):
    """How far one encoder is from another on one task, in percentage points.

    Attributes:
        task: its label, as its group has it.
        measure: that is compared.
        ours: label of the encoder from whose measure the other's is subtracted.
        other: label of the other encoder, or ``CHANCE``.
        points: the difference.
        standard_error: None where the results hold no resampled measures, or equal ones, such as
            those of a single image.
        low: end of the 95 % interval, or None.
        high: end of the 95 % interval, or None.
    """

    task: str
    measure: str
    ours: str
    other: str
    points: float
    standard_error: float | None
    low: float | None
    high: float | None

    @property
    def finding(self) -> Finding:
        """What the 95 % interval lets one say of our encoder."""
        return finding_of(self.low, self.high)

    def text(self) -> str:
        """Write the difference and, where it is known, the half-width of its interval."""
        if self.standard_error is None:
            return signed(self.points)
        return f"{signed(self.points)} ± {NORMAL_95 * self.standard_error:.1f}"


def differences(rows: Sequence[Row], ours: str | None = None) -> list[Difference]:
    """Compare an encoder with each other one that was judged alike, and with chance.

    Of several objectives that CARE was trained with, each is also compared with itself alone.

    Measures of the same number among ``resampled`` are of the same draw of validation images, so
    draws are compared in pairs, as far as both encoders have them. The squared standard error is
    the variance of the paired differences plus, of several trials, each encoder's variance over
    the seeds of the evaluation by the number of trials.

    Attention inside objects is also compared with chance, the objects' share of the pixels: that
    is a constant here, although it varies with the images, too.

    Args:
        rows: evaluations as in results.json; those that others report take no part.
        ours: name of the encoder from whose measures the others' are subtracted; by default the one
            that ``subject_of`` finds.

    Returns:
        Task by task a difference from every other encoder whose measure is a finite number; none
        where a row of ours lacks one.
    """
    results = read(rows)
    names = dict.fromkeys(result.encoder for result in results if not result.source)
    compared = []
    for groups in grouped(results).values():
        for group in groups:
            if not group.source:
                for subject, others in _rivals(names, ours or subject_of(names)).items():
                    compared += _within(group, subject, others)
    return compared


def _rivals(names: Iterable[str], subject: str | None) -> dict[str, list[str]]:
    """The encoders with which each is compared that results are about."""
    if subject is None:
        return {}
    rivals = {subject: [name for name in names if name != subject]}
    for name in names:
        if name != subject and _has_t_stream(name):
            rivals[name] = [_name_alone(name)]
    return rivals


def _has_t_stream(name: str) -> bool:
    """Whether an encoder is called as those are that both streams trained."""
    return name == _CARE or name.startswith(_WITH)


def _name_alone(name: str) -> str:
    """How the encoder is called that the same objective trained without a T-stream."""
    return _C_STREAM if name == _CARE else f"{name.removeprefix(_WITH)}{_ALONE}"


def subject_of(names: Iterable[str]) -> str | None:
    """The encoder that results are about: CARE, with whatever objective, or a C-stream alone.

    Args:
        names: of encoders that were judged, in the order of their results; that of a pipeline's
            first objective comes before the others.

    Returns:
        The first of the first kind that there is, or None.
    """
    names = list(names)
    kinds = (
        [name for name in names if _has_t_stream(name)],
        [name for name in names if name.endswith(_ALONE)],
    )
    return next((kind[0] for kind in kinds if kind), None)


def by_pair(compared: Sequence[Difference]) -> list[list[Difference]]:
    """Sort differences by pair of encoders, in their order, those from chance last."""
    pairs = dict[tuple[str, str], list[Difference]]()
    for difference in sorted(compared, key=lambda difference: difference.other == CHANCE):
        pairs.setdefault((difference.ours, difference.other), []).append(difference)
    return list(pairs.values())


def _within(group: Group, ours: str, others: Collection[str]) -> list[Difference]:
    """Differences of ``ours`` from other encoders of a group, and from chance."""
    labelled = list(zip(group.encoders(), group.results, strict=True))
    rivals = [(label, result) for label, result in labelled if result.encoder in others]
    compared = []
    for label, result in labelled:
        if result.encoder != ours:
            continue
        for other_label, other in rivals:
            if _belong_together(result, other, group.results):
                compared.append(_difference(group.label, label, result, other_label, other))
        if result.chance is not None:
            compared.append(_difference(group.label, label, result, CHANCE, _chance(result)))
    return [difference for difference in compared if difference is not None]


def _belong_together(ours: Result, other: Result, results: Sequence[Result]) -> bool:
    """Whether two results are of one file or, where ours has no such encoder, of any."""
    files = [result.file for result in results if result.encoder == other.encoder]
    return ours.file not in files or other.file == ours.file


def _chance(result: Result) -> Result:
    """What attention without preference would have where this result was measured.

    Only the masks would tell its draws, so it is taken as known.
    """
    draws = [result.chance] * len(result.resampled)
    measures = {result.headline: result.chance}
    return replace(result, measures=measures, trials=1, resampled=draws)


def _difference(
    task: str, our_label: str, ours: Result, other_label: str, other: Result
) -> Difference | None:
    """The difference of two results of one group, or None without finite measures."""
    measure = ours.headline
    our_value = _finite(ours.measures.get(measure))
    other_value = _finite(other.measures.get(measure))
    if our_value is None or other_value is None:
        return None
    points = our_value - other_value
    error = _standard_error(ours, other, measure)
    draws_are_equal = error is not None and error < LEAST_ERROR < abs(points)
    if error is None or draws_are_equal:
        return Difference(task, measure, our_label, other_label, points, None, None, None)
    half_width = NORMAL_95 * error
    return Difference(
        task=task,
        measure=measure,
        ours=our_label,
        other=other_label,
        points=points,
        standard_error=error,
        low=points - half_width,
        high=points + half_width,
    )


def _standard_error(ours: Result, other: Result, measure: str) -> float | None:
    """Standard error of a difference, or None where a part of it is unknown."""
    of_images = _image_variance(ours, other)
    of_our_seeds = _seed_variance(ours, measure)
    of_other_seeds = _seed_variance(other, measure)
    if of_images is None or of_our_seeds is None or of_other_seeds is None:
        return None
    return math.sqrt(of_images + of_our_seeds + of_other_seeds)


def _image_variance(ours: Result, other: Result) -> float | None:
    """Variance of the paired difference over draws of images, or None of fewer than two."""
    paired = []
    for our_draw, other_draw in zip(ours.resampled, other.resampled, strict=False):
        our_value, other_value = _finite(our_draw), _finite(other_draw)
        if our_value is not None and other_value is not None:
            paired.append(our_value - other_value)
    return statistics.variance(paired) if len(paired) > 1 else None


def _seed_variance(result: Result, measure: str) -> float | None:
    """Variance of a mean over trials: 0 of a single one, None where the deviation is unknown."""
    if result.trials <= 1:
        return 0.0
    deviation = _finite(result.deviations.get(measure))
    return None if deviation is None else deviation**2 / result.trials


def _finite(value: object) -> float | None:
    """The value where it is a finite number, as JSON has it."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None
