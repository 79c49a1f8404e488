"""The flow `care-reproduce`: arms × seeds, each pre-trained and judged alike, and what they say.

Every stage is cached by content as the pipeline's are: a grid that was stopped or killed is
continued by the same call, here or on another machine with the same bucket, and a grid with more
arms or seeds computes only those. ``care_reproduce.fn`` is the same without Prefect.
"""

import contextvars
import statistics
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Literal
from httpx import HTTPError
from prefect import flow
from flows.arms import CARE, REFERENCE, Arm, chosen_arms
from flows.chain import Chain, Runner
from flows.grid import (
    DATA_SEED,
    Data,
    Regime,
    Run,
    asked_changes,
    image_data,
    label_counts,
    regime_for,
    scene_data,
)
from flows.run_results import Comparison, Failed, RunResult, keep, kept_ratio
from flows.tables import Result
from shards import storage
from shards.errors import Failure, Misuse, Stopped
from shards.terminal import (
    Batch,
    Count,
    Natural,
    Positive,
    Share,
    Side,
    caused,
    console,
)


@flow(name="care-reproduce", persist_result=False)
def care_reproduce(
    *,
    out: str = "reproduce",
    arms: tuple[str, ...] = (REFERENCE, CARE),
    seeds: tuple[int, ...] = (0, 1, 2),
    reference: str | None = None,
    images: str | None = None,
    val: str | None = None,
    screen: Share = 0,
    protocol: Literal["quick", "photos", "paper"] | None = None,
    encoder: str | None = None,
    size: Side | None = None,
    hidden: Count | None = None,
    steps: Count | None = None,
    epochs: Count | None = None,
    batch_size: Batch | None = None,
    lr: Positive | None = None,
    momentum: Share | None = None,
    compute_ratio: Positive | None = None,
    labels: tuple[float, ...] = (0.01, 0.1),
    finetune_steps: Count = 50,
    trials: Count = 1,
    train_scenes: Count = 2000,
    val_scenes: Count = 400,
    checkpoint_every: Count = 500,
    jobs: Natural = 0,
    workers: Natural | None = None,
    runner: Runner = "threads",
    stall_minutes: Positive = 60,
) -> Result:
    """A grid of experiments: arms × seeds, pre-trained and judged alike, with error bars.

    Every run is judged by kNN, a linear probe on cached features, fine-tuning on few labels and,
    on procedural scenes, by how much of the attention lies inside their objects. What is finished
    is kept run by run in OUT/results; stopped or killed, the same command goes on. Nothing is
    chosen on val.

    Args:
        out: folder of all that is made, a path or URL; grids share what is equal in them.
        arms: what to compare, see docs/reproduce.md for all: c-stream, care, lambda-0, ….
        seeds: of weights, order, views and evaluations, a run each.
        reference: arm from which the others' differences are; by default c-stream, or the first.
        images: class folders, or train beside val folders of them, or shards; else scenes.
        val: labelled images to judge on, where they are not beside those to train on.
        screen: share of train that is judged on instead of val, which stays untouched.
        protocol: quick, the default for scenes, photos, that for images, or the paper's.
        encoder: a name as for care pretrain; by default that of the protocol, like what follows.
        size: side of the views and of the evaluation's crops, pixels.
        hidden: hidden width of projectors and predictors (the paper 4096).
        steps: pre-training steps.
        epochs: passes over the images to train on, instead of steps.
        batch_size: images a step, at most the training set.
        lr: base learning rate for 256 images.
        momentum: first momentum coefficient of the targets.
        compute_ratio: CARE's time over the C-stream's, by default as the finished runs took.
        labels: shares of the training labels to fine-tune on.
        finetune_steps: steps of each fine-tuning, about, if the protocol is not the paper's.
        trials: fine-tunings of each run, whose mean counts.
        train_scenes: procedural scenes to train on.
        val_scenes: procedural scenes to judge on.
        checkpoint_every: steps between checkpoints.
        jobs: runs at a time; 0: one a GPU, or one a core, at most four.
        workers: processes that decode images, beside each process that computes.
        runner: maps shard building and features over Prefect's threads, or Dask or Ray workers.
        stall_minutes: without any progress, after which a stage is stopped and tried again.

    Returns:
        What ``out/reproduce.json`` holds.
    """
    chosen = chosen_arms(arms)
    grid = [Run(arm, seed) for seed in dict.fromkeys(seeds) for arm in chosen]
    reference = reference_arm(reference, chosen)
    check_amounts(grid, labels, screen, compute_ratio)
    scenes = scene_data(train_scenes, val_scenes, screen)
    data = image_data(images, val, screen, out) if images else scenes
    changes = asked_changes(
        encoder=encoder,
        size=size,
        hidden=hidden,
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        momentum=momentum,
    )
    with Chain(out, jobs=jobs, stall=60 * stall_minutes, runner=runner) as chain:
        sets = _built(chain, data)
        regime = regime_for(
            protocol or ("photos" if images else "quick"),
            changes,
            images=sets["train"]["counts"]["kept"],
            labels=labels,
            finetune_steps=finetune_steps,
            trials=trials,
        )
        counts = label_counts(sets, labels)
        machine: Result = {"checkpoint_every": checkpoint_every, "workers": workers}
        lab = Laboratory(chain, regime, data, sets, counts, machine)
        return _compared(out, lab, grid, reference, compute_ratio)


def reference_arm(name: str | None, arms: Sequence[Arm]) -> str:
    """The arm from which the others' differences are.

    Args:
        name: the one that was asked for; None: the C-stream alone, or the first arm.
        arms: of the grid.

    Raises:
        Misuse: It is not among them.
    """
    names = [arm.name for arm in arms]
    if name is None:
        return REFERENCE if REFERENCE in names else names[0]
    if name not in names:
        raise Misuse(f"wanted a reference among the arms {', '.join(names)}, got {name!r}")
    return name


def check_amounts(
    grid: Sequence[Run],
    labels: Iterable[float],
    screen: float,
    compute_ratio: float | None,
) -> None:
    """Refuse, before anything starts, what cannot be done.

    Raises:
        Misuse: There are no seeds, shares are none, or equal compute has nothing to be equal to.
    """
    if not grid or min(run.seed for run in grid) < 0:
        raise Misuse("wanted seeds from 0 on, such as --seeds 0,1,2")
    for share in labels:
        if not 0 < share <= 1:
            raise Misuse(f"wanted shares of the labels above 0 and up to 1, got {share:g}")
    if not 0 <= screen < 1:
        raise Misuse(f"wanted a share of train below 1 to hold out, got {screen:g}")
    names = {run.arm.name for run in grid}
    waiting = [run.arm.name for run in grid if run.arm.step_share is None]
    if waiting and compute_ratio is None and not {CARE, REFERENCE} <= names:
        wanted = f"wanted {CARE} and {REFERENCE} among the arms, whose times {waiting[0]} needs"
        raise Misuse(f"{wanted}, got {', '.join(sorted(names))}; add them or give --compute-ratio")


@dataclass(frozen=True)
class Laboratory:
    """Where the runs of a grid are done: all that they share.

    Attributes:
        chain: of their stages.
        regime: how they are trained and judged.
        data: what the images are.
        sets: results of the stages that built "train" and "val".
        label_counts: images of each share of the labels that is fine-tuned on.
        machine: inputs of a training that decide nothing.
    """

    chain: Chain
    regime: Regime
    data: Data
    sets: dict[str, Result]
    label_counts: dict[float, int]
    machine: Result

    def do(self, run: Run, steps: int, compute_ratio: float | None) -> RunResult:
        """Train and judge; what is finished is only looked up.

        Args:
            run: of the grid.
            steps: to train for.
            compute_ratio: from which these follow, if they do.
        """
        encoder: str | Result = f"random:{self.regime.encoder}"
        timing = None
        if run.arm.trained:
            inputs = {"train": self.sets["train"], **self.regime.training(run, steps)}
            inputs |= self.machine
            trained = self.chain.start(f"pretrain-{run.name}", "pretrain", inputs).result()
            timing = trained["timing"]
            # not all of the run's folder, which has checkpoints, too
            encoder = trained | {"url": f"{trained['url']}/encoder.safetensors"}
        rows = [row for future in self._judged(run, encoder) for row in future]
        digests = {part: str(built["digest"]) for part, built in self.sets.items()}
        digests["encoder"] = rows[0]["digests"]["encoder"]
        return RunResult(
            arm=run.arm,
            seed=run.seed,
            steps=steps,
            compute_ratio=compute_ratio,
            settings=self.regime,
            digests=digests,
            versions=rows[0]["versions"],
            timing=timing,
            rows=rows,
        )

    def _judged(self, run: Run, encoder: str | Result) -> Iterator[list[Result]]:
        """The rows of each evaluation of an encoder, which are all started at once."""
        start, size = self.chain.start, self.regime.size
        inputs: Result = {"size": size, "encoder": encoder, "seed": run.seed, **self.sets}
        inputs |= {"workers": self.machine["workers"]}
        ready = start(f"features-{run.name}", "features", inputs)
        inputs |= {"called": run.arm.name}
        knn = {"verb": "knn", **inputs}
        linear = {"verb": "linear", "fast": True, **inputs}
        started = [
            ("", start(f"knn-{run.name}", "judge", knn, after=ready)),
            ("", start(f"linear-{run.name}", "judge", linear, after=ready)),
        ]
        # each run draws labels of its own, whatever the number of trials
        own_labels = {"seed": run.seed * self.regime.trials}
        for share, count in self.label_counts.items():
            tuning = self.regime.tuning(share, count) | inputs | own_labels
            future = start(f"finetune-{share:g}-{run.name}", "judge", tuning)
            started.append((f"{100 * share:g} % of the labels", future))
        if self.data.scenes:
            looked: Result = {"start": self.data.scenes.start, "count": len(self.data.scenes)}
            looked |= {"size": size, "encoder": encoder, "seed": run.seed}
            looked |= {"scene_seed": DATA_SEED}
            started.append(("", start(f"attention-{run.name}", "attention", looked)))
        for task, future in started:
            names = {"encoder": run.arm.name} | ({"task": task} if task else {})
            yield [row | names for row in future.result()["rows"]]


def _built(chain: Chain, data: Data) -> dict[str, Result]:
    """The shard sets of the grid, built side by side."""
    futures = dict[str, Future[Result]]()
    for part, inputs in data.parts.items():
        futures[part] = chain.start(part, "build", {**inputs, "seed": DATA_SEED})
    return {part: future.result() for part, future in futures.items()}


def _compared(
    out: str,
    lab: Laboratory,
    grid: Sequence[Run],
    reference: str,
    compute_ratio: float | None,
) -> Result:
    """Do all runs, those of equal compute last, and publish after each what there is."""
    done: dict[Run, RunResult | Failed] = {}
    few = [share for share in lab.regime.labels if share not in lab.label_counts]
    skipped = [f"{100 * share:g} % of the labels: too few to hold one out" for share in few]
    content: Result = {}
    waiting = [run for run in grid if run.arm.step_share is None]
    steps = {run: _steps(lab.regime, run.arm, run.arm.step_share or 0) for run in grid}
    for runs in ([run for run in grid if run not in waiting], waiting):
        ratio = None
        if runs is waiting and waiting:
            ratio = compute_ratio or kept_ratio(out, lab.regime) or measured_ratio(done.values())
            if ratio is None:
                lost = Failed("", f"no finished runs of {CARE} and {REFERENCE} tell its steps")
                done |= {run: lost._replace(run=run.name) for run in runs}
                runs = []
            steps |= {run: _steps(lab.regime, run.arm, ratio or 0) for run in runs}
        for run, outcome in _as_they_end(lab, runs, steps, ratio):
            done[run] = outcome
            if isinstance(outcome, RunResult):
                keep(out, outcome)
            content = _publish(out, lab.data.title, reference, grid, done, skipped)
    return content or _publish(out, lab.data.title, reference, grid, done, skipped)


def _steps(regime: Regime, arm: Arm, share: float) -> int:
    """How long an arm is trained."""
    return max(round(regime.steps * share), 1) if arm.trained else 0


def _as_they_end(
    lab: Laboratory,
    runs: Sequence[Run],
    steps: dict[Run, int],
    ratio: float | None,
) -> Iterator[tuple[Run, RunResult | Failed]]:
    """Do runs, as many at a time as the machine has places for; each as it ends, even badly."""
    pool = ThreadPoolExecutor(lab.chain.children.at_a_time())
    # before the chain stops its processes: what has not begun then never begins
    lab.chain.callback(pool.shutdown, wait=False, cancel_futures=True)
    futures: dict[Future[RunResult], Run] = {}
    for run in runs:
        here = contextvars.copy_context()  # in which Prefect finds its flow
        futures[pool.submit(here.run, lab.do, run, steps[run], ratio)] = run
    for future in as_completed(futures):
        run = futures[future]
        try:
            result = future.result()
        except (Failure, RuntimeError) as error:
            # nor is it the run's fault when the server of the flow has gone
            if caused(error, Stopped, HTTPError):
                raise
            console.print(f"[red]{run.name} failed: {error}", soft_wrap=True)
            yield run, Failed(run.name, str(error).strip().splitlines()[-1])
            continue
        own = [score for score in result.scores() if score.arm == run.arm.name]
        figures = ", ".join(f"{score.task} {score.value:.1f}" for score in own)
        console.print(f"{run.name} is finished: {figures}", markup=False, soft_wrap=True)
        yield run, result


def measured_ratio(outcomes: Iterable[RunResult | Failed]) -> float | None:
    """How many times as long a step of CARE takes as one of the C-stream alone.

    Args:
        outcomes: of runs; the median over the seeds of each arm's median seconds a step counts.

    Returns:
        The ratio to three decimals, or None where one of both arms has no finished run.
    """
    seconds: dict[str, list[float]] = {CARE: [], REFERENCE: []}
    for outcome in outcomes:
        if isinstance(outcome, RunResult) and outcome.timing and outcome.arm.name in seconds:
            seconds[outcome.arm.name].append(float(outcome.timing["step_seconds"]))
    if not all(seconds.values()):
        return None
    return round(statistics.median(seconds[CARE]) / statistics.median(seconds[REFERENCE]), 3)


def _publish(
    out: str,
    title: str,
    reference: str,
    grid: Sequence[Run],
    done: dict[Run, RunResult | Failed],
    skipped: Sequence[str],
) -> Result:
    """Write ``reproduce.json`` and ``reproduce.md`` of the runs that have ended."""
    outcomes = [done[run] for run in grid if run in done]
    comparison = Comparison(
        f"CARE on {title}",
        reference,
        results=[one for one in outcomes if isinstance(one, RunResult)],
        failed=[one for one in outcomes if isinstance(one, Failed)],
        skipped=skipped,
    )
    content = comparison.as_json()
    storage.write_json(f"{out}/reproduce.json", content)
    storage.write_bytes(f"{out}/reproduce.md", comparison.as_markdown().encode())
    return dict(storage.read_json(f"{out}/reproduce.json"))
