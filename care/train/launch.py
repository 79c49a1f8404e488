"""Processes that train as one: how they start, how they meet, what they leave of how it ended."""

import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
import torch
import torch.distributed as dist
from care.errors import CareError
from care.train.mirror import local_copy
from care.train.ranks import limit_threads
from shards import storage
from shards.cores import threads_per_process
from shards.errors import Stopped
from shards.orphans import end_with_parent
from shards.progress import warn

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

# times that all processes are started again after one has died; they continue from the last
# checkpoint
RESTARTS = 3
# a probe may be long
TIMEOUT = timedelta(hours=2)


class Outcome(NamedTuple):
    """How a training ended.

    Attributes:
        state: ``running`` (it goes on, or died), ``done``, ``stopped`` or ``failed``.
        message: what it said.
    """

    state: str
    message: str


@contextmanager
def process_group(run: str | Path) -> Iterator[None]:
    """Be in the group that torchrun's environment describes, if it describes one.

    The group is of NCCL with a process a GPU, or of gloo with the cores divided. Outside of
    torchrun nothing happens.

    Args:
        run: run directory or URL of the training, which says why an earlier attempt ended.

    Raises:
        CareError: The attempt before failed, and this one would, too.
    """
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")):
        before = outcome(run)
        if before.state == "failed":
            raise CareError(before.message)
        warn("a process died; all continue from the last checkpoint")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    # torchrun gives every worker a session of its own: without this they would outlive it
    end_with_parent(signal.SIGTERM)
    has_gpus = torch.cuda.is_available()
    if has_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    limit_threads()
    dist.init_process_group(
        "nccl" if has_gpus else "gloo",
        _meeting_place(),
        TIMEOUT,
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def _meeting_place() -> str:
    """Where the processes find each other, as torch wants to be told.

    Those that ``torchrun`` below started are on one machine: they meet in a file, and listen to
    this machine alone.
    """
    place = os.environ.get("TORCHELASTIC_RUN_ID", "")
    if not place.startswith("/"):
        return "env://"
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, _loopback())
    return f"file://{place}{os.environ['TORCHELASTIC_RESTART_COUNT']}"


def _loopback() -> str:
    """The interface by which a machine talks to itself: ``lo``, or ``lo0`` of Macs."""
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in names if name.startswith("lo")), "lo")


def torchrun(
    run: str | Path,
    nproc: int,
    arguments: Sequence[str],
    *,
    module: str,
) -> None:
    """Run a module in several processes of this machine, which train as one.

    Args:
        run: run directory or URL that they write.
        nproc: their number.
        arguments: of the module's command line.
        module: what ``python -m`` is to run.

    Raises:
        Stopped: They were asked to stop, and have saved.
        CareError: They failed, as their record in ``run`` says, or died.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    # the processes tell themselves what went wrong
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # or it would listen on every address
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    os.environ["CARE_LAUNCHED"] = str(time.time())
    death = "it ended without saying how"
    try:
        with (
            _threads_divided(nproc),
            tempfile.TemporaryDirectory(prefix="care-") as folder,
        ):
            elastic_launch(_launch_config(folder, nproc), sys.executable)("-m", module, *arguments)
    except ChildFailedError as error:
        codes = [f"rank {n}: exit code {e.exitcode}" for n, e in sorted(error.failures.items())]
        death = f"a process died ({', '.join(codes)})"
    except SignalException:
        death = "stopped by a signal before it could save"
    ended = outcome(run)
    for refusal in local_copy(run).glob("status-refused*.json"):
        refusal.unlink()
    if ended.state == "stopped":
        raise Stopped(ended.message)
    if ended.state != "done":
        raise CareError(
            ended.message or f"{run}: {death}; the same command continues from the last checkpoint"
        )


def _launch_config(folder: str, nproc: int) -> "LaunchConfig":
    """How torch's launcher is to start processes that meet in files of a folder.

    Torch's servers, by which they would meet else, listen on every address.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=nproc,
        run_id=f"{folder}/group-",
        rdzv_backend="c10d",
        rdzv_endpoint=f"{folder}/starter",
        max_restarts=RESTARTS,
        rdzv_configs={"store_type": "file", "keep_alive_interval": 600},
        logs_specs=DefaultLogsSpecs(log_dir=folder),
    )


@contextmanager
def _threads_divided(nproc: int) -> Iterator[None]:
    """Let the processes that are started in the block divide the cores.

    Torch's launcher sets ``OMP_NUM_THREADS`` to 1 where it is not set.
    """
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads_per_process(nproc))
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def outcome(run: str | Path) -> Outcome:
    """How the last training in a run directory ended, by the records of its processes.

    Args:
        run: run directory or URL.

    Returns:
        The worst that any of them says; what an earlier call of ``torchrun`` left says nothing
        about this one.
    """
    launched = float(os.environ.get("CARE_LAUNCHED", "0"))
    messages: dict[str, str] = {}
    for path in sorted(local_copy(run).glob("status*.json"), reverse=True):
        if path.stat().st_mtime >= launched:
            record = storage.read_json(path)
            messages[record["state"]] = record["message"]
    for state in ("failed", "stopped", "done"):
        if state in messages:
            return Outcome(state, messages[state])
    return Outcome("running", messages.get("running", ""))
