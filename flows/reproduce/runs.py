"""The runs of a grid, and the JSON that each of them leaves in ``OUT/results``."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, Self
from care.show.seeds import Score, scores
from flows.reproduce.arms import CARE, REFERENCE, Arm, arms_of_objectives, chosen_arms
from flows.reproduce.regime import Regime
from flows.result import Result
from shards import storage
from shards.bounds import PositiveFloat
from shards.errors import Misuse

DEFAULT_ARMS = (REFERENCE, CARE)


class Run(NamedTuple):
    """One training of the grid, and its evaluations."""

    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        """What its stages and files are called."""
        return f"{self.arm.name}-seed-{self.seed}"


@dataclass(frozen=True)
class ArmChoice:
    """What was asked for to be compared.

    Attributes:
        arms: what to compare, see docs/reproduce.md for all: c-stream, care, lambda-0, …, or groups
            of them: main, lambda, blocks, positions, taps, ….
        seeds: of weights, order, views and evaluations, a run each.
        reference: arm from which the others' differences are; by default c-stream, or care.
        compute_ratio: CARE's time over the C-stream's, by default as the finished runs took.
        objectives: what C-streams learn by, each alone and beside the T-stream, side by side; these
            arms come in the place of the default ones, or after those that are asked for.
        t_stream: with the arms that have a T-stream, or without them.
    """

    arms: tuple[str, ...] = DEFAULT_ARMS
    seeds: tuple[int, ...] = (0, 1, 2)
    reference: str | None = None
    compute_ratio: PositiveFloat | None = None
    objectives: tuple[str, ...] | None = None
    t_stream: bool = True

    def chosen(self) -> list[Arm]:
        """The arms that were asked for, in their order, each once.

        Raises:
            Misuse: One of a name is not known, or none is left.
        """
        of_objectives = arms_of_objectives(self.objectives or ())
        names = self.arms
        if of_objectives and names == DEFAULT_ARMS:
            names = ()
        names = (*names, *(arm.name for arm in of_objectives))
        arms = chosen_arms(names)
        if not self.t_stream:
            arms = [arm for arm in arms if not (arm.trained and arm.t_stream)]
        if not arms:
            raise Misuse(f"wanted arms without a T-stream, got {', '.join(names)}")
        return arms


@dataclass(frozen=True)
class Grid:
    """What is to be done and compared; what cannot be is refused when it is made.

    Attributes:
        runs: in the order of the tables.
        reference: name of the arm from which the others' differences are.
        compute_ratio: CARE's time a step over the C-stream's, if it was given.

    Raises:
        Misuse: There are no seeds, or equal compute has nothing to be equal to.
    """

    runs: tuple[Run, ...]
    reference: str
    compute_ratio: float | None

    def __post_init__(self) -> None:
        if not self.runs or min(run.seed for run in self.runs) < 0:
            raise Misuse("wanted seeds from 0 on, such as --seeds 0,1,2")
        names = {run.arm.name for run in self.runs}
        if self.waiting and self.compute_ratio is None and not {CARE, REFERENCE} <= names:
            waiting = self.waiting[0].arm.name
            wanted = f"wanted {CARE} and {REFERENCE} among the arms, whose times {waiting} needs"
            advice = "add them or give --compute-ratio"
            raise Misuse(f"{wanted}, got {', '.join(sorted(names))}; {advice}")

    @classmethod
    def of(cls, choice: ArmChoice) -> Self:
        """The grid that was asked for: all arms of a seed, then those of the next.

        Raises:
            Misuse: It cannot be done.
        """
        arms = choice.chosen()
        runs = list[Run]()
        for seed in dict.fromkeys(choice.seeds):
            runs += [Run(arm, seed) for arm in arms]
        return cls(tuple(runs), reference_arm(choice.reference, arms), choice.compute_ratio)

    @property
    def waiting(self) -> list[Run]:
        """The runs whose length follows from the time that others took."""
        return [run for run in self.runs if run.arm.step_share is None]


def reference_arm(name: str | None, arms: Sequence[Arm]) -> str:
    """The arm from which the others' differences are.

    Args:
        name: the one that was asked for; None: the C-stream alone, or CARE, or the first arm.
        arms: of the grid.

    Raises:
        Misuse: It is not among them.
    """
    names = [arm.name for arm in arms]
    if name is None:
        return next(arm for arm in (REFERENCE, CARE, *names) if arm in names)
    if name not in names:
        raise Misuse(f"wanted a reference among the arms {', '.join(names)}, got {name!r}")
    return name


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
        timing: how long the training took on what; None of an encoder that was not trained.
        rows: its evaluations as in a results.json.
        recipe: what the stage that pre-trained was given by its objective's recipe, not by the
            regime; None where that was nothing.
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
    recipe: Result | None = None

    @classmethod
    def from_json(cls, content: Result) -> Self:
        """Take up what ``keep`` wrote.

        Args:
            content: of the JSON of a run.
        """
        values = {"arm": Arm(**content["arm"]), "settings": Regime(**content["settings"])}
        return cls(**content | values)

    @property
    def name(self) -> str:
        """What its file is called, without its ending."""
        return Run(self.arm, self.seed).name

    def scores(self) -> list[Score]:
        """Its figures, and those of chance."""
        return scores(self.arm.name, self.seed, self.rows)


class FailedRun(NamedTuple):
    """A run that failed, and why."""

    run: str
    message: str


Outcome = RunResult | FailedRun


def keep(out: str, result: RunResult) -> None:
    """Write a run's JSON; one of a run of that name with other settings is moved, not lost.

    Args:
        out: folder of the grid, path or URL.
        result: of the run.
    """
    folder = f"{out}/results"
    content = asdict(result)
    if f"{result.name}.json" in storage.listing(folder):
        before = storage.read_json(f"{folder}/{result.name}.json")
        if _settings_digest(before) != _settings_digest(content):
            earlier = f"{folder}/earlier/{result.name}-{storage.digest(before)[:8]}.json"
            storage.write_json(earlier, before)
    storage.write_json(f"{folder}/{result.name}.json", content)


def kept_ratio(out: str, settings: Regime) -> float | None:
    """The compute ratio that finished runs of these settings already have, so that it stays.

    A grid that gains seeds would else measure another one, and train all of its runs again.

    Args:
        out: folder of the grid, path or URL.
        settings: of all runs of the grid.
    """
    digest = storage.digest(asdict(settings))
    for name in sorted(storage.listing(f"{out}/results")):
        content = storage.read_json(f"{out}/results/{name}") if name.endswith(".json") else {}
        ratio = content.get("compute_ratio")
        if ratio and storage.digest(content["settings"]) == digest:
            return float(ratio)
    return None


def _settings_digest(content: Result) -> str:
    """Digest of what decides a run's result."""
    fields = ("arm", "steps", "settings", "digests", "recipe")
    return storage.digest([content.get(field) for field in fields])
