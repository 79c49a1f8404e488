"""What the runs of a grid leave: a JSON each, and from them the tables and the verdict."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple
from care.show.seeds import (
    PairedDifference,
    Score,
    paired_differences,
    scores,
    seeds_verdict,
    summaries,
)
from care.show.verdict import CHANCE
from flows.arms import Arm
from flows.grid import Regime, Run
from flows.tables import Result
from shards import storage


@dataclass(frozen=True)
class RunResult:
    """A finished run: all that a JSON of it holds.

    Attributes:
        arm: of the run.
        seed: of the run.
        steps: that it was trained for.
        compute_ratio: where the steps follow from it: CARE's time a step over the C-stream's.
        settings: of all runs of its grid.
        digests: of "train", "val" and the "encoder" that was judged.
        versions: of the packages that judged it.
        timing: ``flows.stages.Timing`` of the training; None of an encoder that was not trained.
        rows: its evaluations as in a results.json.
    """

    arm: Arm
    seed: int
    steps: int
    compute_ratio: float | None
    settings: Regime
    digests: dict[str, str]
    versions: dict[str, str]
    timing: Result | None
    rows: list[Result]

    def scores(self) -> list[Score]:
        """Its figures, and those of chance."""
        return scores(self.arm.name, self.seed, self.rows)


class Failed(NamedTuple):
    """A run that failed, and why."""

    run: str
    message: str


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
    failed: Sequence[Failed] = ()
    skipped: Sequence[str] = ()

    def scores(self) -> list[Score]:
        """The figures of all runs; chance is the same whatever the arm: it is there once, last."""
        found = {}
        for result in self.results:
            for score in result.scores():
                found[score.arm, score.seed, score.task] = score
        return sorted(found.values(), key=lambda score: score.arm == CHANCE)

    def differences(self) -> list[PairedDifference]:
        """Of the arms, and of chance, from the reference."""
        return paired_differences(self.scores(), self.reference)

    def as_json(self) -> Result:
        """All of it but the rows, which each run's JSON has."""
        differences = self.differences()
        found = [one._asdict() | {"finding": one.finding} for one in differences]
        runs = [
            {"run": Run(result.arm, result.seed).name, "steps": result.steps}
            | {"compute_ratio": result.compute_ratio, "timing": result.timing}
            for result in self.results
        ]
        return {
            "title": self.title,
            "settings": asdict(self.results[0].settings) if self.results else {},
            "reference": self.reference,
            "verdict": seeds_verdict(differences),
            "arms": [summary._asdict() for summary in summaries(self.scores())],
            "differences": found,
            "runs": runs,
            "failed": [failure._asdict() for failure in self.failed],
            "skipped": [*self.skipped],
        }

    def as_markdown(self) -> str:
        """The verdict, then tables of the arms, of their differences and of the time they took."""
        differences = self.differences()
        parts = [f"# {self.title}", *seeds_verdict(differences).splitlines()]
        heading = "mean ± standard deviation over seeds"
        of_arms = [(one.arm, one.task, one.text()) for one in summaries(self.scores())]
        parts += [f"## Arms: {heading}", _by_task(of_arms)]
        if differences:
            heading = f"minus {self.reference}, with 95 % intervals"
            found = [(one.arm, one.task, one.text()) for one in differences]
            parts += [f"## Points {heading}", _by_task(found)]
        parts += ["## Trainings", self._trainings()]
        lost = [f"- {failure.run} failed: {failure.message}" for failure in self.failed]
        lost += [f"- skipped: {line}" for line in self.skipped]
        if lost:
            parts += ["## Left out", "\n".join(lost)]
        return "\n\n".join(parts) + "\n"

    def _trainings(self) -> str:
        """A table of the arms: what sets each apart, seeds, steps, median seconds."""
        by_arm = dict[str, list[RunResult]]()
        for result in self.results:
            by_arm.setdefault(result.arm.name, []).append(result)
        lines = []
        for name, results in by_arm.items():
            first = results[0]
            seeds = ", ".join(str(result.seed) for result in results)
            seconds = [result.timing["seconds"] for result in results if result.timing]
            ratio = f" (× {first.compute_ratio:g})" if first.compute_ratio else ""
            took = f"{statistics.median(seconds):,.0f}" if seconds else ""
            lines.append([name, first.arm.about, seeds, f"{first.steps:,}{ratio}", took])
        return markdown_table(["arm", "what it is", "seeds", "steps", "seconds"], lines)


def keep(out: str, result: RunResult) -> None:
    """Write a run's JSON; one of a run of that name with other settings is moved, not lost.

    Args:
        out: folder of the grid, path or URL.
        result: of the run.
    """
    name, folder, content = Run(result.arm, result.seed).name, f"{out}/results", asdict(result)
    if f"{name}.json" in storage.listing(folder):
        before = storage.read_json(f"{folder}/{name}.json")
        if _asked(before) != _asked(content):
            earlier = f"{folder}/earlier/{name}-{storage.digest(before)[:8]}.json"
            storage.write_json(earlier, before)
    storage.write_json(f"{folder}/{name}.json", content)


def kept_ratio(out: str, settings: Regime) -> float | None:
    """The compute ratio that finished runs of these settings already have, so that it stays.

    A grid that gains seeds would else measure another one, and train all of its runs again.

    Args:
        out: folder of the grid, path or URL.
        settings: of all runs of the grid.
    """
    wanted = storage.digest(asdict(settings))
    for name in sorted(storage.listing(f"{out}/results")):
        content = storage.read_json(f"{out}/results/{name}") if name.endswith(".json") else {}
        ratio = content.get("compute_ratio")
        if ratio and storage.digest(content["settings"]) == wanted:
            return float(ratio)
    return None


def _asked(content: Result) -> str:
    """Digest of what decides a run's result."""
    return storage.digest([content[field] for field in ("arm", "steps", "settings", "digests")])


def markdown_table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [columns, ["---"] * len(columns), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _by_task(figures: Iterable[tuple[str, str, str]]) -> str:
    """A table with a line for each arm and a column for each task, of (arm, task, text)."""
    tasks, by_arm = list[str](), dict[str, dict[str, str]]()
    for arm, task, text in figures:
        by_arm.setdefault(arm, {})[task] = text
        if task not in tasks:
            tasks.append(task)
    lines = [[arm, *(of.get(task, "") for task in tasks)] for arm, of in by_arm.items()]
    return markdown_table(["arm", *tasks], lines)
