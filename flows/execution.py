"""How stages are run: nothing of it decides a result, and so nothing of it is in a key."""

from dataclasses import dataclass
from typing import Literal
from flows.result import Result
from flows.runners import Runner
from shards.bounds import NonNegativeInt, PositiveFloat

# as care.train.recompute has them, without torch
Recompute = Literal["none", "some", "all"]


@dataclass(frozen=True)
class Execution:
    """How stages are run; none of it decides a result.

    Attributes:
        nproc: training processes on this machine, or on all nodes of Ray's cluster; 0: one a GPU.
        jobs: stages at a time; 0: one a GPU, or one a core, at most four a machine.
        workers: processes that decode images, beside each process that computes; by default what
            is best here.
        recompute: activations that a training computes again in the backward pass instead of
            keeping them, for less memory and the same result: none, some (the first half of the
            encoder's blocks), or all.
        runner: maps shard building and features over Prefect's threads here, or over Dask or Ray
            workers; on Ray's cluster pre-training and evaluations run, too.
        stall_minutes: without any progress, after which a stage is stopped and tried again.
        refresh: stages to do again though they are finished.
    """

    nproc: NonNegativeInt = 0
    jobs: NonNegativeInt = 0
    workers: NonNegativeInt | None = None
    recompute: Recompute = "none"
    runner: Runner = "threads"
    stall_minutes: PositiveFloat = 60
    refresh: list[str] | None = None

    def inputs_for(self, work: str) -> Result:
        """The inputs of a work that say how it is run.

        Args:
            work: a name in ``flows.works.WORKS``.
        """
        inputs: Result = {}
        if work in ("pretrain", "features", "judge"):
            inputs["workers"] = self.workers
        if work == "pretrain":
            inputs["nproc"] = self.nproc
            inputs["recompute"] = self.recompute
        return inputs
