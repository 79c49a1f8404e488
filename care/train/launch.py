"""How processes that train as one start, meet, and leave word of how it ended."""

import ctypes
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
import torch
import torch.distributed as dist
from care.errors import CareError
from care.train.mirror import local_copy
from care.train.ranks import limit_threads
from shards import storage
from shards.cores import threads_per_process
from shards.errors import Stopped
from shards.terminal import console

RESTARTS = 3  # times that all processes are started again after one has died; they continue from the last checkpoint


@contextmanager
def process_group(run: str | Path) -> Iterator[None]:
    """Be in the group for ``run`` that torchrun's environment describes, if it does: NCCL, a process a GPU, or gloo, the cores divided."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")):
        state, message = outcome(run)
        if state == "failed":  # and would fail again
            raise CareError(message)
        console.print("[yellow]a process died; all continue from the last checkpoint")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    # torchrun gives every worker a session of its own: without this they would outlive it
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    limit_threads()
    number, count, meeting = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "env://"
    if (place := os.environ.get("TORCHELASTIC_RUN_ID", "")).startswith(
        "/"
    ):  # by ``torchrun`` below
        os.environ |= {
            name: os.environ.get(name, "lo")
            for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
        }
        meeting = f"file://{place}{os.environ['TORCHELASTIC_RESTART_COUNT']}"
    # a probe may be long
    dist.init_process_group(
        "nccl" if gpus else "gloo", meeting, timedelta(hours=2), rank=number, world_size=count
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def torchrun(
    run: str | Path, nproc: int, arguments: Sequence[str], *, module: str = "care.train"
) -> None:
    """Run ``python -m MODULE ARGUMENTS``, which writes ``run``, in ``nproc`` processes; what it raises, their record there says."""
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(
        logging.CRITICAL
    )  # the processes tell themselves what went wrong
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # it would listen on every address
    os.environ["CARE_LAUNCHED"] = str(time.time())
    died = "it ended without saying how"
    threads_before = os.environ.get("OMP_NUM_THREADS")
    # the processes divide the cores; unset, torch's launcher would set it to 1
    os.environ["OMP_NUM_THREADS"] = str(threads_per_process(nproc))
    try:
        with tempfile.TemporaryDirectory(
            prefix="care-"
        ) as folder:  # they meet in files: torch's servers listen on every address
            group = LaunchConfig(
                1,
                1,
                nproc,
                run_id=f"{folder}/group-",
                rdzv_backend="c10d",
                rdzv_endpoint=f"{folder}/starter",
                max_restarts=RESTARTS,
                rdzv_configs={"store_type": "file", "keep_alive_interval": 600},
                logs_specs=DefaultLogsSpecs(log_dir=folder),
            )
            elastic_launch(group, sys.executable)("-m", module, *arguments)
    except ChildFailedError as error:
        died = f"a process died ({', '.join(f'rank {n}: exit code {e.exitcode}' for n, e in sorted(error.failures.items()))})"
    except SignalException:
        died = "stopped by a signal before it could save"
    finally:
        if threads_before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = threads_before
    state, message = outcome(run)
    if state == "stopped":
        raise Stopped(message)
    if state != "done":
        raise CareError(
            message or f"{run}: {died}; the same command continues from the last checkpoint"
        )


def outcome(run: str | Path) -> tuple[str, str]:
    """How the last training in ``run`` ended, and what it said: ``running`` (it goes on, or died), ``done``, ``stopped``, ``failed``."""
    launched = float(
        os.environ.get("CARE_LAUNCHED", "0")
    )  # what an earlier call has left says nothing about this one
    paths = [
        path
        for path in sorted(local_copy(run).glob("status*.json"))
        if path.stat().st_mtime >= launched
    ]
    by_state = {
        record["state"]: record["message"] for record in map(storage.read_json, reversed(paths))
    }
    state = next((state for state in ("failed", "stopped", "done") if state in by_state), "running")
    return state, by_state.get(state, "")
