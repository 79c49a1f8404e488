"""Where the pieces of a stage are done: Prefect's threads here, or workers of Dask or Ray.

All workers are on this machine and listen on its loopback, unless the environment names a cluster.
"""

import logging
import os
from importlib.util import find_spec
from typing import Any, Literal
from prefect.task_runners import ThreadPoolTaskRunner
from shards.cores import available_cores
from shards.errors import ShardError

Runner = Literal["threads", "dask", "ray"]


def check_installed(runner: Runner) -> None:
    """Refuse a runner whose package is not there.

    Raises:
        ShardError: It is not installed.
    """
    if runner != "threads" and not find_spec(f"prefect_{runner}"):
        raise ShardError(f"the {runner} runner is not installed; pip install 'care-ssl[{runner}]'")


def task_runner(runner: Runner) -> Any:
    """Prefect's task runner of that name, a context manager."""
    if runner == "dask":
        return _dask()
    if runner == "ray":
        return _ray()
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


def _ray() -> Any:
    """Workers of Ray: of the cluster in the environment, else on this machine's loopback."""
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        # before the import: loopback alone, and nobody is told of us
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from prefect_ray.task_runners import RayTaskRunner

    if address:
        return RayTaskRunner(address=address)
    return RayTaskRunner(init_kwargs={"num_cpus": available_cores(), "include_dashboard": False})
