"""Where the outcomes of a grid are put up: a JSON for each run, and the tables of all so far."""

from collections.abc import Sequence
from flows.reproduce.comparison import Comparison
from flows.reproduce.runs import FailedRun, Grid, Outcome, RunResult, keep
from flows.result import Result
from shards import storage


class Board:
    """The outcomes of a grid so far.

    Args:
        out: folder of the grid, path or URL.
        title: of the images, in words.
        grid: in whose order the runs are shown.
        skipped: what was asked for and left out, and why.
    """

    def __init__(self, out: str, title: str, grid: Grid, skipped: Sequence[str]) -> None:
        self.out = out
        self._title = title
        self._grid = grid
        self._skipped = skipped
        self._outcomes: dict[str, Outcome] = {}

    @property
    def results(self) -> list[RunResult]:
        """Of the runs that are finished, in the order of the grid."""
        return [outcome for outcome in self._in_order() if isinstance(outcome, RunResult)]

    def add(self, outcome: Outcome) -> None:
        """Put up what became of a run."""
        if isinstance(outcome, RunResult):
            keep(self.out, outcome)
            self._outcomes[outcome.name] = outcome
        else:
            self._outcomes[outcome.run] = outcome
        self.publish()

    def publish(self) -> Result:
        """Write ``reproduce.json`` and ``reproduce.md`` of the runs that have ended.

        Returns:
            What ``reproduce.json`` holds.
        """
        comparison = Comparison(
            f"CARE on {self._title}",
            self._grid.reference,
            results=self.results,
            failed=[outcome for outcome in self._in_order() if isinstance(outcome, FailedRun)],
            skipped=self._skipped,
        )
        storage.write_json(f"{self.out}/reproduce.json", comparison.as_json())
        storage.write_bytes(f"{self.out}/reproduce.md", comparison.as_markdown().encode())
        return dict(storage.read_json(f"{self.out}/reproduce.json"))

    def _in_order(self) -> list[Outcome]:
        """The outcomes in the order of the grid."""
        names = [run.name for run in self._grid.runs]
        return [self._outcomes[name] for name in names if name in self._outcomes]
