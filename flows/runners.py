"""Where stages and their pieces are done: processes here, or workers of Dask or of Ray.

All workers are on this machine and listen on its loopback, unless the environment names a cluster.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal, Protocol
from prefect.task_runners import ThreadPoolTaskRunner
from flows.attempts import Tell
from flows.supervise import Children
from shards.cores import available_cores
from shards.errors import ShardError

Runner = Literal["threads", "dask", "ray"]
_PACKAGES: dict[Runner, str] = {"threads": "prefect", "dask": "prefect_dask", "ray": "ray"}


class Processes(Protocol):
    """What does the stages of a run, each in a process of its own: here, or on a cluster."""

    def run(self, work: str, arguments: Any, tell: Tell, *, alone: bool = False) -> None:
        """Do a stage, or a piece of one, and return when it is done."""

    def fill_the_cpu(self, stages: int) -> bool:
        """Whether so many stages at a time use all cores, where there is no GPU."""

    def at_a_time(self) -> int:
        """How many stages run at a time."""

    def stop(self) -> None:
        """Have the stages that are left save themselves, and end them."""


def check_installed(runner: Runner) -> None:
    """Refuse a runner whose package is not there.

    Raises:
        ShardError: It is not installed.
    """
    if not find_spec(_PACKAGES[runner]):
        raise ShardError(f"the {runner} runner is not installed; pip install 'care-ssl[{runner}]'")


@contextmanager
def stage_processes(runner: Runner) -> Iterator[Callable[[str, int, float], Processes]]:
    """What starts the processes of stages, which end before the block does.

    Dask's workers do pieces of stages alone, Ray's whole stages, too.

    Yields:
        A function of the folder of the pipeline, the stages at a time (0: as many as is best), and
        the seconds of silence after which a stage is taken for hung.

    Raises:
        ShardError: No cluster of Ray answers.
    """
    if runner == "ray":
        from flows.cluster.session import session
        from flows.cluster.stages import RayStages

        with session():
            yield RayStages
        return
    yield lambda _, jobs, stall: Children(jobs, stall)


def task_runner(runner: Runner) -> Any:
    """Prefect's task runner for pieces, of its threads here or of Dask, a context manager."""
    if runner == "dask":
        return _dask()
    return ThreadPoolTaskRunner(max_workers=available_cores())


def _dask() -> Any:
    """Workers of Dask: of the cluster in the environment, else on this machine's loopback."""
    import dask
    from prefect_dask.task_runners import DaskTaskRunner

    logging.getLogger("distributed").setLevel(logging.WARNING)
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    if address:
        return DaskTaskRunner(address=address)
    # by default a worker's variables are left in this process, too, and what it starts from then
    # on, such as a training, computes with one thread
    dask.config.set({"distributed.nanny.pre-spawn-environ": {}})
    cluster = {
        "env": {"OMP_NUM_THREADS": "1"},
        "n_workers": available_cores(),
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "scheduler_kwargs": {"dashboard": False},  # whose import fails now and then
    }
    return DaskTaskRunner(cluster_kwargs=cluster)
