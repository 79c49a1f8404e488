"""The runs of a grid in order, as many at a time as the machine has places for.

Those of equal compute come last: how long they are trained follows from what the others took.
"""

import contextvars
import statistics
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from httpx import HTTPError
from flows.exits import caused
from flows.reproduce.arms import CARE, REFERENCE
from flows.reproduce.board import Board
from flows.reproduce.laboratory import Job, Laboratory
from flows.reproduce.runs import FailedRun, Grid, Outcome, RunResult, kept_ratio
from flows.result import Result
from shards.errors import Failure, Stopped
from shards.progress import say


def do_grid(lab: Laboratory, grid: Grid, board: Board) -> Result:
    """Do all runs, and publish after each what there is.

    Args:
        lab: where they are done.
        grid: of the runs.
        board: to which each outcome goes.

    Returns:
        What is published at the end.
    """
    jobs = []
    for run in grid.runs:
        if run.arm.step_share is not None:
            jobs.append(Job(run, lab.regime.arm_steps(run.arm, run.arm.step_share)))
    for outcome in as_they_end(lab, jobs):
        board.add(outcome)
    if grid.waiting:
        _do_waiting(lab, grid, board)
    return board.publish()


def _do_waiting(lab: Laboratory, grid: Grid, board: Board) -> None:
    """Do the runs of equal compute, now that the others tell the ratio, or list them as failed."""
    ratio = grid.compute_ratio or kept_ratio(board.out, lab.regime) or measured_ratio(board.results)
    if ratio is None:
        reason = f"no finished runs of {CARE} and {REFERENCE} tell its steps"
        for run in grid.waiting:
            board.add(FailedRun(run.name, reason))
        return
    jobs = [Job(run, lab.regime.arm_steps(run.arm, ratio), ratio) for run in grid.waiting]
    for outcome in as_they_end(lab, jobs):
        board.add(outcome)


def as_they_end(lab: Laboratory, jobs: Sequence[Job]) -> Iterator[Outcome]:
    """Do runs side by side.

    Args:
        lab: where they are done.
        jobs: the runs, in the order in which they are begun.

    Yields:
        The outcome of each as it ends, whichever it is.

    Raises:
        Stopped: Everything was stopped; what has not begun then never begins.
    """
    pool = ThreadPoolExecutor(lab.schedule.children.at_a_time())
    # before the chain stops its processes
    lab.schedule.at_end(pool.shutdown, wait=False, cancel_futures=True)
    futures: dict[Future[RunResult], Job] = {}
    for job in jobs:
        # in which Prefect finds its flow
        context = contextvars.copy_context()
        futures[pool.submit(context.run, lab.do, job)] = job
    for future in as_completed(futures):
        yield _outcome(future, futures[future].run.name)


def _outcome(future: Future[RunResult], name: str) -> Outcome:
    """What became of a run, told in a line."""
    try:
        result = future.result()
    except (Failure, RuntimeError) as error:
        # nor is it the run's fault when the server of the flow has gone
        if caused(error, Stopped, HTTPError):
            raise
        say(f"{name} failed: {error}", "red")
        return FailedRun(name, str(error).strip().splitlines()[-1])
    scores = [score for score in result.scores() if score.arm == result.arm.name]
    figures = ", ".join(f"{score.task} {score.value:.1f}" for score in scores)
    say(f"{name} is finished: {figures}")
    return result


def measured_ratio(results: Iterable[RunResult]) -> float | None:
    """How many times as long a step of CARE takes as one of the C-stream alone.

    Args:
        results: of runs; the median over the seeds of each arm's median seconds a step counts.

    Returns:
        The ratio to three decimals, or None where one of both arms has no finished run.
    """
    seconds: dict[str, list[float]] = {CARE: [], REFERENCE: []}
    for result in results:
        if result.timing and result.arm.name in seconds:
            seconds[result.arm.name].append(float(result.timing["step_seconds"]))
    if not all(seconds.values()):
        return None
    return round(statistics.median(seconds[CARE]) / statistics.median(seconds[REFERENCE]), 3)
