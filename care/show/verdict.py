"""What results say in a sentence or two: how far CARE is from the baselines, and how surely.

Every figure is a difference of two encoders on one task, with the uncertainty that the validation
images and the seeds of the evaluation leave. It is computed from the rows of a results.json alone,
so that a page, a terminal and a file of any age say the same.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple
from care.show.groups import Group, Row, grouped

# a row's first of these is what its draws hold; per cent
HEADLINES = ("top1", "ap", "inside", "pointing", "corloc")
CHANCE = "chance"  # stands for an encoder whose attention prefers no place
NORMAL_95 = 1.96  # standard errors from an estimate to either end of its 95 % interval
LEAST_ERROR = 1e-6  # percentage points; below it is the rounding of equal draws
Finding = Literal["ahead", "behind", "not distinguishable", "uncertainty unknown"]
_LEADS: dict[Finding, str] = {  # how a sentence about another encoder begins
    "ahead": "is ahead of {}",
    "behind": "is behind {}",
    "not distinguishable": "is not distinguishable from {} at this length",
}


class Difference(NamedTuple):
    """How far one encoder is from another on one task, in percentage points.

    The standard error and the interval are None where the rows hold no resampled measures, or
    equal ones, such as those of a single image.
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
        if self.low is None or self.high is None:
            return "uncertainty unknown"
        if self.low > 0:
            return "ahead"
        if self.high < 0:
            return "behind"
        return "not distinguishable"

    def text(self) -> str:
        """The difference with its sign and, where it is known, the half-width of its interval."""
        if self.standard_error is None:
            return signed(self.points)
        return f"{signed(self.points)} ± {NORMAL_95 * self.standard_error:.1f}"


def differences(rows: Sequence[Row], ours: str = "CARE") -> list[Difference]:
    """How far an encoder is from each other one that was judged alike, and from chance.

    Measures of the same number among ``resampled`` are of the same draw of validation images, so
    draws are compared in pairs, as far as both encoders have them. The squared standard error is
    the variance of the paired differences plus, of several trials, each encoder's variance over
    the seeds of the evaluation by the number of trials.

    Attention inside objects is also compared with chance, the objects' share of the pixels: that
    is a constant here, although it varies with the images, too.

    Args:
        rows: evaluations as in results.json; those that others report take no part.
        ours: name of the encoder from whose measures the others' are subtracted.

    Returns:
        Task by task a difference from every other encoder whose measure is a finite number; none
        where a row of ours lacks one.
    """
    found = []
    for groups in grouped(rows).values():
        for group in groups:
            if not group.source:
                found += _within(group, ours)
    return found


def verdict(rows: Sequence[Row]) -> str:
    """Where CARE is ahead of the other encoders, where behind, and where nobody can tell.

    Args:
        rows: evaluations as in results.json.

    Returns:
        Plain text: a sentence for each other encoder, then what the uncertainty covers; "" where
        no encoder is called CARE.
    """
    if not any(row["encoder"] == "CARE" for row in rows if not row.get("source")):
        return ""
    compared = differences(rows)
    return " ".join([*findings(compared), caveat(compared)])


def findings(compared: Sequence[Difference]) -> list[str]:
    """A sentence for each pair of encoders, in the order of the differences, chance last."""
    if not compared:
        return ["No other encoder was evaluated as CARE was, on the same task, settings and data."]
    return [_sentence(pair) for pair in by_pair(compared)]


def caveat(compared: Sequence[Difference]) -> str:
    """What the uncertainty of the differences covers, what it does not, and what to do next."""
    if not compared:
        return "Give it baselines: care pipeline run --baselines random:ENCODER."
    known = [difference for difference in compared if difference.standard_error is not None]
    sentences = []
    if known:
        sentences.append(
            "± is the half-width of a 95 % interval in percentage points; it covers the choice of"
            " validation images (resampled) and, where a task has several trials, the seeds of the"
            " evaluation, but only one pre-training of each encoder: another seed of pre-training"
            " may move the differences further."
        )
    if len(known) < len(compared):
        sentences.append("Without ± the uncertainty is unknown: results lack resampled images.")
        sentences.append("Evaluate again to learn it.")
    sentences.append("For a firmer answer train longer: care demo --steps N.")
    return " ".join(sentences)


def by_pair(compared: Sequence[Difference]) -> list[list[Difference]]:
    """The differences of each pair of encoders, in order, those from chance last."""
    pairs = dict[tuple[str, str], list[Difference]]()
    for difference in sorted(compared, key=lambda difference: difference.other == CHANCE):
        pairs.setdefault((difference.ours, difference.other), []).append(difference)
    return list(pairs.values())


def signed(value: float, spec: str = ".1f") -> str:
    """A number with its sign, the minus as wide as the plus; what is shown as zero has none."""
    text = format(abs(value), spec)
    if float(text) == 0:
        return text
    return f"+{text}" if value > 0 else f"−{text}"


def _within(group: Group, ours: str) -> list[Difference]:
    """Differences of ``ours`` from the other encoders of a group, and from chance."""
    named_rows = list(zip(group.encoders(), group.rows, strict=True))
    other_rows = [(name, row) for name, row in named_rows if row["encoder"] != ours]
    found = []
    for our_name, our_row in named_rows:
        if our_row["encoder"] != ours:
            continue
        rivals = [pair for pair in other_rows if _belong_together(our_row, pair[1], other_rows)]
        if "area" in our_row:
            # only the masks would tell it for each draw, so it is taken as known
            rivals.append((CHANCE, {"inside": our_row["area"]}))
        for name, row in rivals:
            difference = _difference(group.label, our_name, our_row, name, row)
            if difference is not None:
                found.append(difference)
    return found


def _belong_together(our_row: Row, row: Row, other_rows: Sequence[tuple[str, Row]]) -> bool:
    """Whether two rows are of one file or, where ours has no such encoder, of any."""
    files = [other.get("file") for _, other in other_rows if other["encoder"] == row["encoder"]]
    return our_row.get("file") not in files or row.get("file") == our_row.get("file")


def _difference(task: str, ours: str, our_row: Row, other: str, row: Row) -> Difference | None:
    """The difference of two rows of one group; None where either has no finite measure."""
    measure = next((name for name in HEADLINES if our_row.get(name) is not None), HEADLINES[0])
    our_value, value = _finite(our_row.get(measure)), _finite(row.get(measure))
    if our_value is None or value is None:
        return None
    points = our_value - value
    if other == CHANCE:
        row = {"resampled": [value] * len(our_row.get("resampled") or ())}
    variances = (
        _image_variance(our_row, row),
        _seed_variance(our_row, measure),
        _seed_variance(row, measure),
    )
    known = [variance for variance in variances if variance is not None]
    error = math.sqrt(sum(known))
    draws_are_equal = error < LEAST_ERROR < abs(points)
    if len(known) < len(variances) or draws_are_equal:
        return Difference(task, measure, ours, other, points, None, None, None)
    half_width = NORMAL_95 * error
    interval = (points - half_width, points + half_width)
    return Difference(task, measure, ours, other, points, error, *interval)


def _image_variance(our_row: Row, row: Row) -> float | None:
    """Variance of the paired difference over the draws of images; None with fewer than two."""
    draws = zip(our_row.get("resampled") or (), row.get("resampled") or (), strict=False)
    finite_draws = [(_finite(our_draw), _finite(draw)) for our_draw, draw in draws]
    paired = [a - b for a, b in finite_draws if a is not None and b is not None]
    return statistics.variance(paired) if len(paired) > 1 else None


def _seed_variance(row: Row, measure: str) -> float | None:
    """Variance of a mean over trials: 0 of a single one, None where the deviation is unknown."""
    trials = row.get("trials", 1)
    if trials <= 1:
        return 0.0
    deviation = _finite(row.get(f"{measure}_std"))
    return None if deviation is None else deviation**2 / trials


def _finite(value: object) -> float | None:
    """The value where it is a finite number, as JSON has it."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _sentence(pair: Sequence[Difference]) -> str:
    """What the differences of two encoders say, those with the same finding together."""
    ours, other = pair[0].ours, _in_prose(pair[0].other)
    by_finding: dict[Finding, list[Difference]] = {
        "ahead": [],
        "behind": [],
        "not distinguishable": [],
        "uncertainty unknown": [],
    }
    for difference in pair:
        by_finding[difference.finding].append(difference)
    if len(by_finding["uncertainty unknown"]) == len(pair):
        return f"{ours} minus {other}: {_listed(pair)}, of unknown uncertainty."
    if len(by_finding["not distinguishable"]) == len(pair):
        return f"{ours} and {other} are not distinguishable at this length ({_listed(pair)})."
    lead = next(finding for finding, part in by_finding.items() if part)
    lead_part = by_finding.pop(lead)
    clauses = [f"{ours} {_LEADS[lead].format(other)} in {_counted(lead_part, len(pair))}"]
    for finding, part in by_finding.items():
        if part:
            clauses.append(f"{finding} in {len(part)} ({_listed(part)})")
        elif {lead, finding} == {"ahead", "behind"} and len(lead_part) < len(pair):
            clauses.append(f"{finding} in none")
    return ", ".join(clauses) + "."


def _counted(part: Sequence[Difference], total: int) -> str:
    """How many of the tasks these are, and which, with their differences."""
    if total == 1:
        return f"{part[0].task} ({part[0].text()})"
    if len(part) < total:
        return f"{len(part)} of {total} tasks ({_listed(part)})"
    count = "both" if total == 2 else f"all {total}"
    return f"{count} tasks ({_listed(part)})"


def _listed(part: Sequence[Difference]) -> str:
    """Tasks with their differences, in the order of the results."""
    return ", ".join(f"{difference.task} {difference.text()}" for difference in part)


def _in_prose(encoder: str) -> str:
    """An encoder's name as a sentence has it."""
    return f"the {encoder}" if encoder.startswith("C-stream alone") else encoder
