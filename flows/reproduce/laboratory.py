"""One run of a grid: an encoder trained, then judged by every evaluation, each a stage."""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple
from flows.reproduce.images import DATA_SEED, GridImages
from flows.reproduce.regime import Regime
from flows.reproduce.runs import Run, RunResult
from flows.result import Result
from flows.schedule import Schedule


class Job(NamedTuple):
    """A run, how long it is trained, and the ratio from which that follows, if it does."""

    run: Run
    steps: int
    compute_ratio: float | None = None


class Judged(NamedTuple):
    """An evaluation that has been started, and the task that its rows are called, if not theirs."""

    future: Future[Result]
    task: str | None = None


@dataclass(frozen=True)
class Laboratory:
    """Where the runs of a grid are done: all that they share.

    Attributes:
        chain: of their stages.
        regime: how they are trained and judged.
        images: on which.
        sets: results of the stages that built "train" and "val".
        label_counts: images of each share of the labels that is fine-tuned on.
        workers: processes that decode images beside each that computes; None: as many as is best.
        checkpoint_every: steps between checkpoints.
    """

    chain: Schedule
    regime: Regime
    images: GridImages
    sets: dict[str, Result]
    label_counts: dict[float, int]
    workers: int | None
    checkpoint_every: int

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
        )

    def _train(self, job: Job) -> Future[Result]:
        """Start the stage that pre-trains."""
        arm, seed = job.run
        inputs = {"train": self.sets["train"], **self.regime.training(arm, seed, job.steps)}
        inputs |= {"checkpoint_every": self.checkpoint_every, "workers": self.workers}
        return self.chain.start(f"pretrain-{job.run.name}", "pretrain", inputs)

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
            yield [row | names for row in evaluation.future.result()["rows"]]

    def _classify(self, run: Run, encoder: str | Result) -> Iterator[Judged]:
        """Start kNN, the linear probe and fine-tuning on few labels."""
        start = self.chain.start
        inputs: Result = {"size": self.regime.size, "encoder": encoder, "seed": run.seed}
        inputs |= {**self.sets, "workers": self.workers}
        ready = start(f"features-{run.name}", "features", inputs)
        inputs |= {"called": run.arm.name}
        knn = {"verb": "knn", **inputs}
        linear = {"verb": "linear", "fast": True, **inputs}
        yield Judged(start(f"knn-{run.name}", "judge", knn, after=ready))
        yield Judged(start(f"linear-{run.name}", "judge", linear, after=ready))
        # each run draws labels of its own, whatever the number of trials
        own_labels = {"seed": run.seed * self.regime.trials}
        for share, count in self.label_counts.items():
            tuning = self.regime.tuning(share, count) | inputs | own_labels
            future = start(f"finetune-{share:g}-{run.name}", "judge", tuning)
            yield Judged(future, f"{100 * share:g} % of the labels")

    def _look(self, run: Run, encoder: str | Result) -> Iterator[Judged]:
        """Start what says where an encoder looks: on procedural scenes, whose masks are known."""
        scenes = self.images.scenes
        if scenes is None:
            return
        inputs: Result = {"start": scenes.start, "count": len(scenes), "scene_seed": DATA_SEED}
        inputs |= {"size": self.regime.size, "encoder": encoder, "seed": run.seed}
        yield Judged(self.chain.start(f"attention-{run.name}", "attention", inputs))


def build_sets(chain: Schedule, images: GridImages) -> dict[str, Result]:
    """The shard sets of a grid, built side by side.

    Args:
        chain: of the stages.
        images: of the grid.

    Returns:
        The results of the stages that build "train" and "val".
    """
    futures = dict[str, Future[Result]]()
    for part, inputs in images.parts.items():
        futures[part] = chain.start(part, "build", {**inputs, "seed": DATA_SEED})
    return {part: future.result() for part, future in futures.items()}
