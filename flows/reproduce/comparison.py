"""The finished runs of a grid, compared: tables, and a verdict in words."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple
from care.show.intervals import CHANCE
from care.show.seeds import PairedDifference, Score, paired_differences, summaries
from care.show.verdict import seeds_verdict
from flows.recipes import BYOL, PLAIN_OPTIMIZER, describe_recipe
from flows.reproduce.objective_table import ObjectivePair, objective_lines, objective_pairs
from flows.reproduce.runs import FailedRun, RunResult
from flows.result import Result


class Cell(NamedTuple):
    """A figure in a table of arms and tasks."""

    arm: str
    task: str
    text: str


@dataclass(frozen=True)
class Comparison:
    """The finished runs of a grid, compared.

    Attributes:
        title: of the images, in words.
        reference: name of the arm from which the others' differences are.
        results: of the runs that are finished, in the order of the grid.
        failed: runs that are not.
        skipped: what was asked for and left out, and why.
    """

    title: str
    reference: str
    results: Sequence[RunResult]
    failed: Sequence[FailedRun] = ()
    skipped: Sequence[str] = ()

    def scores(self) -> list[Score]:
        """The figures of all runs; chance is the same whatever the arm: it is there once, last."""
        scores = {}
        for result in self.results:
            for score in result.scores():
                scores[score.arm, score.seed, score.task] = score
        return sorted(scores.values(), key=lambda score: score.arm == CHANCE)

    def differences(self) -> list[PairedDifference]:
        """Of the arms, and of chance, from the reference."""
        return paired_differences(self.scores(), self.reference)

    def objective_pairs(self) -> list[ObjectivePair]:
        """Objectives alone and with CARE; none where BYOL is all that there is of them."""
        pairs = objective_pairs(self.scores())
        return pairs if any(pair.objective != BYOL for pair in pairs) else []

    def as_json(self) -> Result:
        """All of it but the rows, which each run's JSON has."""
        differences = self.differences()
        return {
            "title": self.title,
            "settings": asdict(self.results[0].settings) if self.results else {},
            "reference": self.reference,
            "verdict": seeds_verdict(differences),
            "arms": [summary._asdict() for summary in summaries(self.scores())],
            "differences": [pair._asdict() | {"finding": pair.finding} for pair in differences],
            "objectives": [_pair_fields(pair) for pair in self.objective_pairs()],
            "runs": [_trained_as(result) for result in self.results],
            "recipes": self._recipes(),
            "failed": [failure._asdict() for failure in self.failed],
            "skipped": [*self.skipped],
        }

    def as_markdown(self) -> str:
        """The verdict, then tables of the arms, of their differences and of the time they took."""
        differences = self.differences()
        parts = [f"# {self.title}", *seeds_verdict(differences).splitlines()]
        means = [Cell(mean.arm, mean.task, mean.text()) for mean in summaries(self.scores())]
        parts += ["## Arms: mean ± standard deviation over seeds", _by_task(means)]
        if differences:
            cells = [Cell(pair.arm, pair.task, pair.text()) for pair in differences]
            parts += [f"## Points minus {self.reference}, with 95 % intervals", _by_task(cells)]
        pairs = self.objective_pairs()
        if pairs:
            heading = "## Objectives alone and with CARE, and the difference with 95 % intervals"
            parts += [heading, markdown_table(*objective_lines(pairs))]
        parts += ["## Trainings", self._trainings()]
        recipes = self._recipes()
        if recipes:
            parts += ["## Recipes", "\n".join(f"- {arm}: {text}" for arm, text in recipes.items())]
        left_out = [f"- {failure.run} failed: {failure.message}" for failure in self.failed]
        left_out += [f"- skipped: {line}" for line in self.skipped]
        if left_out:
            parts += ["## Left out", "\n".join(left_out)]
        return "\n\n".join(parts) + "\n"

    def _recipes(self) -> dict[str, str]:
        """How arms of other objectives were trained, in a line each."""
        recipes = {
            result.arm: {"optimizer": PLAIN_OPTIMIZER, **result.recipe}
            for result in self.results
            if result.recipe
        }
        return {arm.name: describe_recipe(arm.objective, recipe) for arm, recipe in recipes.items()}

    def _trainings(self) -> str:
        """A table of the arms: what sets each apart, seeds, steps, median seconds."""
        by_arm = dict[str, list[RunResult]]()
        for result in self.results:
            by_arm.setdefault(result.arm.name, []).append(result)
        lines = [_training(results) for results in by_arm.values()]
        return markdown_table(["arm", "what it is", "seeds", "steps", "seconds"], lines)


def markdown_table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    Args:
        columns: their headings.
        lines: the texts of a line's cells, for each line.
    """
    rows = [columns, ["---"] * len(columns), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _pair_fields(pair: ObjectivePair) -> Result:
    """An objective alone and with CARE, as JSON."""
    difference = pair.difference
    return {
        "objective": pair.objective,
        "task": pair.task,
        "alone": pair.alone._asdict(),
        "with_care": pair.with_care._asdict(),
        "difference": None if difference is None else difference._asdict(),
    }


def _trained_as(result: RunResult) -> Result:
    """How long a run was trained, and what that took."""
    return {
        "run": result.name,
        "steps": result.steps,
        "compute_ratio": result.compute_ratio,
        "timing": result.timing,
    }


def _training(results: Sequence[RunResult]) -> list[str]:
    """The line of an arm in the table of trainings."""
    first = results[0]
    seeds = ", ".join(str(result.seed) for result in results)
    ratio = f" (× {first.compute_ratio:g})" if first.compute_ratio else ""
    steps = f"{first.steps:,}{ratio}"
    seconds = [result.timing["seconds"] for result in results if result.timing]
    median = f"{statistics.median(seconds):,.0f}" if seconds else ""
    return [first.arm.name, first.arm.about, seeds, steps, median]


def _by_task(cells: Iterable[Cell]) -> str:
    """A table with a line for each arm and a column for each task."""
    tasks = list[str]()
    by_arm = dict[str, dict[str, str]]()
    for cell in cells:
        by_arm.setdefault(cell.arm, {})[cell.task] = cell.text
        if cell.task not in tasks:
            tasks.append(cell.task)
    lines = [[arm, *(texts.get(task, "") for task in tasks)] for arm, texts in by_arm.items()]
    return markdown_table(["arm", *tasks], lines)
