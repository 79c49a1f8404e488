"""What each objective is worth alone, and as the C-stream of CARE: one line an objective."""

from collections.abc import Sequence
from typing import NamedTuple
from care.show.seeds import PairedDifference, Score, Summary, paired_differences, summaries
from flows.recipes import OBJECTIVE_NAMES, title_of
from flows.reproduce.arms import arm_pair


class ObjectivePair(NamedTuple):
    """An objective on one task, alone and with CARE.

    Attributes:
        objective: its name.
        task: that was judged.
        alone: figure of the arm without a T-stream.
        with_care: figure of the arm with one.
        difference: the latter minus the former, seed by seed; None where they share no seed.
    """

    objective: str
    task: str
    alone: Summary
    with_care: Summary
    difference: PairedDifference | None


def objective_pairs(scores: Sequence[Score]) -> list[ObjectivePair]:
    """Compare each objective that was trained both ways with itself.

    Args:
        scores: of all runs.

    Returns:
        Objectives in the order of their names' list, tasks in that of the scores.
    """
    means = {(mean.arm, mean.task): mean for mean in summaries(scores)}
    tasks = list(dict.fromkeys(score.task for score in scores))
    pairs = list[ObjectivePair]()
    for objective in OBJECTIVE_NAMES:
        alone, with_care = arm_pair(objective)
        of_pair = [score for score in scores if score.arm in (alone, with_care)]
        differences = {pair.task: pair for pair in paired_differences(of_pair, alone)}
        for task in tasks:
            if (alone, task) in means and (with_care, task) in means:
                figures = (means[alone, task], means[with_care, task])
                pairs.append(ObjectivePair(objective, task, *figures, differences.get(task)))
    return pairs


def objective_lines(pairs: Sequence[ObjectivePair]) -> tuple[list[str], list[list[str]]]:
    """The columns of the table, and a line for each objective.

    Args:
        pairs: of all objectives.
    """
    tasks = list(dict.fromkeys(pair.task for pair in pairs))
    columns = ["objective"]
    for task in tasks:
        columns += [f"{task}: alone", "with CARE", "difference"]
    by_place = {(pair.objective, pair.task): pair for pair in pairs}
    lines = list[list[str]]()
    for objective in dict.fromkeys(pair.objective for pair in pairs):
        line = [title_of(objective)]
        for task in tasks:
            line += _cells(by_place.get((objective, task)))
        lines.append(line)
    return columns, lines


def _cells(pair: ObjectivePair | None) -> list[str]:
    """The figures of an objective on a task."""
    if pair is None:
        return ["", "", ""]
    difference = pair.difference.text() if pair.difference else ""
    return [pair.alone.text(), pair.with_care.text(), difference]
