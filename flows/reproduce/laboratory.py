"""One run of a grid: an encoder trained, then judged by every evaluation, each a stage."""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple
from flows.execution import Execution
from flows.protocols import Protocol
from flows.recipes import RecipeChanges, recipe_inputs, warmup_steps
from flows.reproduce.images import DATA_SEED, GridImages
from flows.reproduce.object_rows import object_rows
from flows.reproduce.regime import EVALUATION_NAMES, OF_MASKS, Regime
from flows.reproduce.runs import Run, RunResult
from flows.result import Result
from flows.runners import Runner
from flows.schedule import Schedule
from flows.stages import Needs, Stage
from shards.bounds import NonNegativeInt, PositiveFloat, PositiveInt


@dataclass(frozen=True)
class GridMachine:
    """What decides no result.

    Attributes:
        checkpoint_every: steps between checkpoints.
        jobs: runs at a time; 0: one a GPU, or one a core, at most four.
        workers: processes that decode images, beside each process that computes.
        runner: maps shard building and features over Prefect's threads, or Dask or Ray workers; on
            Ray's cluster trainings and evaluations run, too.
        stall_minutes: without any progress, after which a stage is stopped and tried again.
    """

    checkpoint_every: PositiveInt = 500
    jobs: NonNegativeInt = 0
    workers: NonNegativeInt | None = None
    runner: Runner = "threads"
    stall_minutes: PositiveFloat = 60

    def execution(self) -> Execution:
        """How the stages of the runs are run."""
        return Execution(
            nproc=1,
            jobs=self.jobs,
            workers=self.workers,
            runner=self.runner,
            stall_minutes=self.stall_minutes,
        )


class Job(NamedTuple):
    """A run, how long it is trained, and the ratio from which that follows, if it does."""

    run: Run
    steps: int
    compute_ratio: float | None = None


class Judged(NamedTuple):
    """An evaluation that has been started.

    Attributes:
        future: of its result.
        task: that its rows are called, if not theirs.
        of_objects: the names of evaluations by which it is told, where it is that of objects.
    """

    future: Future[Result]
    task: str | None = None
    of_objects: tuple[str, ...] = ()

    def rows(self) -> list[Result]:
        """What it says, once it is finished."""
        result = self.future.result()
        if self.of_objects:
            return list(object_rows(result, self.of_objects))
        return list(result["rows"])


@dataclass(frozen=True)
class Laboratory:
    """Where the runs of a grid are done: all that they share.

    Attributes:
        schedule: of their stages.
        regime: how they are trained and judged.
        images: on which.
        sets: results of the stages that built "train" and "val".
        label_counts: images of each share of the labels that is fine-tuned on.
        machine: what decides no result.
        protocol: in proportion to which objectives' recipes are changed, as it is declared.
        recipe_changes: what of the recipes was asked for otherwise.
        evaluations: by which encoders are judged.
        objects: result of the stage that built "val" with its objects' masks, where encoders are
            judged by these.
    """

    schedule: Schedule
    regime: Regime
    images: GridImages
    sets: dict[str, Result]
    label_counts: dict[float, int]
    machine: GridMachine
    protocol: Protocol
    recipe_changes: RecipeChanges
    evaluations: tuple[str, ...] = EVALUATION_NAMES
    objects: Result | None = None

    def do(self, job: Job) -> RunResult:
        """Train and judge; what is finished is only looked up.

        Args:
            job: a run of the grid.

        Raises:
            Failure: A stage failed, or everything was stopped.
        """
        arm, seed = job.run
        encoder: str | Result = f"random:{self.regime.encoder}"
        timing = None
        if arm.trained:
            trained = self._train(job).result()
            timing = trained["timing"]
            # not all of the run's folder, which has checkpoints, too
            encoder = trained | {"url": f"{trained['url']}/encoder.safetensors"}
        rows = [row for evaluation in self._judge(job.run, encoder) for row in evaluation]
        digests = {part: str(built["digest"]) for part, built in self.sets.items()}
        digests["encoder"] = rows[0]["digests"]["encoder"]
        return RunResult(
            arm=arm,
            seed=seed,
            steps=job.steps,
            compute_ratio=job.compute_ratio,
            settings=self.regime,
            digests=digests,
            versions=rows[0]["versions"],
            timing=timing,
            rows=rows,
            recipe=self._recipe(job) or None,
        )

    def _train(self, job: Job) -> Future[Result]:
        """Start the stage that pre-trains."""
        arm, seed = job.run
        inputs = {"train": self.sets["train"], **self.regime.training(arm, seed, job.steps)}
        inputs |= {"checkpoint_every": self.machine.checkpoint_every, **self._recipe(job)}
        return self._start("pretrain", inputs, job.run)

    def _recipe(self, job: Job) -> Result:
        """What the stage that pre-trains is given by the recipe of its objective."""
        arm, _ = job.run
        if not arm.trained:
            return {}
        epoch = max(self.sets["train"]["counts"]["kept"] // self.regime.batch_size, 1)
        warmup = warmup_steps(arm.objective, self.protocol, steps=job.steps, epoch=epoch)
        return recipe_inputs(
            arm.objective,
            self.protocol,
            self.recipe_changes,
            warmup=warmup,
            size=self.regime.size,
            t_stream=arm.t_stream,
            encoder=arm.encoder(self.regime.encoder),
        )

    def _judge(self, run: Run, encoder: str | Result) -> Iterator[list[Result]]:
        """The rows of each evaluation of an encoder; all of them are started at once."""
        evaluations = [
            *self._classify(run, encoder),
            *self._look(run, encoder),
        ]
        for evaluation in evaluations:
            names = {"encoder": run.arm.name}
            if evaluation.task:
                names["task"] = evaluation.task
            yield [row | names for row in evaluation.rows()]

    def _classify(self, run: Run, encoder: str | Result) -> Iterator[Judged]:
        """Start kNN, the linear probe and fine-tuning on few labels."""
        inputs: Result = {"size": self.regime.size, "encoder": encoder, "seed": run.seed}
        inputs |= self.sets
        named = inputs | {"called": run.arm.name}
        on_features = named | {"cache": Needs(f"features-{run.name}")}
        verbs: dict[str, Result] = {"knn": {}, "linear": {"fast": True}}
        judged = [verb for verb in verbs if verb in self.evaluations]
        if judged:
            self._start("features", inputs, run)
        for verb in judged:
            yield Judged(self._start(verb, {"verb": verb, **verbs[verb], **on_features}, run))
        if "finetune" not in self.evaluations:
            return
        # each run draws labels of its own, whatever the number of trials
        own_labels = {"seed": run.seed * self.regime.trials}
        for share, count in self.label_counts.items():
            tuning = self.regime.tuning(share, count) | named | own_labels
            future = self._start(f"finetune-{share:g}", tuning, run)
            yield Judged(future, f"{100 * share:g} % of the labels")

    def _look(self, run: Run, encoder: str | Result) -> Iterator[Judged]:
        """Start what says where an encoder looks: on procedural scenes, whose masks are known."""
        names = tuple(name for name in OF_MASKS if name in self.evaluations)
        if self.objects is None or not names:
            return
        inputs: Result = {"verb": "attention", "val": self.objects, "called": run.arm.name}
        inputs |= {"size": self.regime.size, "encoder": encoder, "seed": run.seed}
        yield Judged(self._start("attention", inputs, run), of_objects=names)

    def _start(self, name: str, inputs: Result, run: Run) -> Future[Result]:
        """Start a stage of a run; those with a verb are evaluations."""
        kind = inputs.get("verb", name)
        work = "judge" if "verb" in inputs else name
        return self.schedule.start(Stage(kind, f"{name}-{run.name}", work, inputs))


def build_objects(schedule: Schedule, images: GridImages) -> Result | None:
    """The scenes that are judged on with their objects' masks; None of other images.

    Args:
        schedule: of the stage.
        images: of the grid.
    """
    if images.scenes is None:
        return None
    inputs: Result = {**images.parts["val"], "annotated": True, "seed": DATA_SEED}
    return schedule.start(Stage("build", "objects", "build", inputs)).result()


def build_sets(schedule: Schedule, images: GridImages) -> dict[str, Result]:
    """The shard sets of a grid, built side by side.

    Args:
        schedule: of the stages.
        images: of the grid.

    Returns:
        The results of the stages that build "train" and "val".
    """
    futures = dict[str, Future[Result]]()
    for part, inputs in images.parts.items():
        stage = Stage("build", part, "build", {**inputs, "seed": DATA_SEED})
        futures[part] = schedule.start(stage)
    return {part: future.result() for part, future in futures.items()}
