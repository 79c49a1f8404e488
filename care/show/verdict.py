"""What results say in a sentence or two, and how surely.

Words only: the figures are those of ``care.show.comparison``, of encoders that were pre-trained
once each, and of ``care.show.seeds``, of arms with several seeds.
"""

from collections.abc import Sequence
from typing import TypeVar
from care.show.comparison import Difference, by_pair, differences, subject_of
from care.show.intervals import CHANCE, FINDINGS, Finding
from care.show.rows import Row, read
from care.show.seeds import PairedDifference

AnyDifference = TypeVar("AnyDifference", Difference, PairedDifference)
# how a sentence about another encoder begins
_LEADS: dict[Finding, str] = {
    "ahead": "is ahead of {}",
    "behind": "is behind {}",
    "not distinguishable": "is not distinguishable from {} at this length",
}
# how the same network is called that was trained without a transformer
C_STREAM = "C-stream alone"
_NOT_AHEAD_OF_C_STREAM = (
    "The C-stream alone is the same network, trained as long without the transformer that tells it"
    " where to look. In the paper (Table 1, linear, ResNet-50) the transformer is worth 5.5 points"
    " after 100 epochs of ImageNet, which are 125,100 steps of 1,024 images, and 1.3 after 800. In"
    " some hundred steps it has hardly learned itself where to look, and what it says may cost as"
    " much as it gives: that CARE is behind or level here speaks neither for the method nor"
    " against it. What to try: more --steps; several seeds of both, which tell luck from effect"
    " (care reproduce --arms c-stream,care --seeds 0,1,2); a smaller --attention-weight than 100."
)
_NOT_AHEAD_OF_RANDOM = (
    "An untrained network is no zero: its features tell simple images apart, and a short training"
    " first spoils some of that. What to try: more --steps while the C-stream's loss below still"
    " falls; where the spread of the embeddings goes to 0, a smaller --lr; where intervals are"
    " wider than the differences, more images to evaluate on."
)
_NOT_AHEAD_OF_CHANCE = (
    "Chance is what attention without any preference would have: the objects' share of the pixels."
    " Maps at or below it say that the features do not depend on the objects yet."
)
# how a clause about a reference begins
_ARM_LEADS: dict[Finding, str] = {
    "ahead": "ahead of {}",
    "behind": "behind {}",
    "not distinguishable": "not distinguishable from {}",
    "uncertainty unknown": "minus {}, of unknown uncertainty",
}


def verdict(rows: Sequence[Row]) -> str:
    """Say where CARE is ahead of the other encoders, where behind, and where nobody can tell.

    Args:
        rows: evaluations as in results.json.

    Returns:
        Plain text: a sentence for each other encoder, then what the uncertainty covers; "" where
        no encoder is called CARE or as the pipeline calls one that it has trained.
    """
    if not judges_care(rows):
        return ""
    compared = differences(rows)
    return " ".join([*findings(compared), caveat(compared)])


def judges_care(rows: Sequence[Row]) -> bool:
    """Whether any score that was measured here is of an encoder called CARE, or likewise."""
    scores = (result for result in read(rows) if result.is_score and not result.source)
    return subject_of(result.encoder for result in scores) is not None


def findings(compared: Sequence[Difference]) -> list[str]:
    """Write a sentence for each pair of encoders, chance last."""
    if not compared:
        return ["No other encoder was evaluated as CARE was, on the same task, settings and data."]
    return [_sentence(pair) for pair in by_pair(compared)]


def caveat(compared: Sequence[Difference]) -> str:
    """Say what the uncertainty of differences covers, what not, and what to do next."""
    if not compared:
        return "Give it baselines: care pipeline run --baselines random:ENCODER."
    measured = [difference for difference in compared if difference.standard_error is not None]
    sentences = []
    if measured:
        sentences.append(
            "± is the half-width of a 95 % interval in percentage points; it covers the choice of"
            " validation images (resampled) and, where a task has several trials, the seeds of the"
            " evaluation, but only one pre-training of each encoder: another seed of pre-training"
            " may move the differences further."
        )
    if len(measured) < len(compared):
        sentences.append("Without ± the uncertainty is unknown: results lack resampled images.")
        sentences.append("Evaluate again to learn it.")
    sentences.append("For a firmer answer train longer, by more --steps.")
    return " ".join(sentences)


def advice(compared: Sequence[Difference]) -> list[str]:
    """Say what it means that CARE is not ahead everywhere, and what to try.

    Args:
        compared: differences as of ``care.show.comparison.differences``.

    Returns:
        A paragraph for each kind of encoder that CARE is not surely ahead of; none where it is
        ahead of all.
    """
    others = {difference.other for difference in compared if difference.finding != "ahead"}
    paragraphs = []
    if any(other.startswith(C_STREAM) for other in others):
        paragraphs.append(_NOT_AHEAD_OF_C_STREAM)
    if any(other.startswith("random") for other in others):
        paragraphs.append(_NOT_AHEAD_OF_RANDOM)
    if CHANCE in others:
        paragraphs.append(_NOT_AHEAD_OF_CHANCE)
    return paragraphs


def seeds_verdict(compared: Sequence[PairedDifference]) -> str:
    """Say task by task which arms are ahead of the reference, behind, or nobody can tell.

    Args:
        compared: differences as of ``care.show.seeds.paired_differences``.

    Returns:
        A line for each task, then one on what the intervals cover; of no differences, that.
    """
    if not compared:
        return "No arm shares a finished seed with the reference: nothing can be compared yet."
    by_task = dict[str, list[PairedDifference]]()
    for difference in compared:
        by_task.setdefault(difference.task, []).append(difference)
    lines = [_arms_sentence(task, of_task) for task, of_task in by_task.items()]
    return "\n".join([*lines, _seeds_caveat(compared)])


def _sentence(pair: Sequence[Difference]) -> str:
    """What the differences of two encoders say, those with the same finding together."""
    ours, other = pair[0].ours, _in_prose(pair[0].other)
    sorted_pair = _by_finding(pair)
    if len(sorted_pair["uncertainty unknown"]) == len(pair):
        return f"{ours} minus {other}: {_listed(pair)}, of unknown uncertainty."
    if len(sorted_pair["not distinguishable"]) == len(pair):
        return f"{ours} and {other} are not distinguishable at this length ({_listed(pair)})."
    lead = next(finding for finding, part in sorted_pair.items() if part)
    lead_part = sorted_pair.pop(lead)
    clauses = [f"{ours} {_LEADS[lead].format(other)} in {_counted(lead_part, len(pair))}"]
    for finding, part in sorted_pair.items():
        if part:
            clauses.append(f"{finding} in {len(part)} ({_listed(part)})")
        elif {lead, finding} == {"ahead", "behind"} and len(lead_part) < len(pair):
            clauses.append(f"{finding} in none")
    return ", ".join(clauses) + "."


def _by_finding(compared: Sequence[AnyDifference]) -> dict[Finding, list[AnyDifference]]:
    """A list of differences for each finding, in the order of ``FINDINGS``."""
    sorted_differences = {finding: list[AnyDifference]() for finding in FINDINGS}
    for difference in compared:
        sorted_differences[difference.finding].append(difference)
    return sorted_differences


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
    return f"the {encoder}" if encoder.startswith(C_STREAM) else encoder


def _arms_sentence(task: str, compared: Sequence[PairedDifference]) -> str:
    """What the differences on one task say, those with the same finding together."""
    clauses = []
    for finding, part in _by_finding(compared).items():
        if part:
            lead = _ARM_LEADS[finding].format(part[0].reference)
            arms = [f"{difference.arm} {difference.text()}" for difference in part]
            clauses.append(f"{lead}: {', '.join(arms)}")
    return f"{task}: {'; '.join(clauses)}."


def _seeds_caveat(compared: Sequence[PairedDifference]) -> str:
    """What the intervals cover, and what they do not."""
    fewest = min(difference.seeds for difference in compared)
    if fewest > 1:
        return (
            f"Points, with 95 % intervals of seeds (paired, at least {fewest}) and of resampled"
            " validation images; they are not corrected for the number of comparisons."
        )
    return (
        "Points, with 95 % intervals of resampled validation images; where an arm has one seed,"
        " another seed of pre-training may move them further: give more with --seeds."
    )
