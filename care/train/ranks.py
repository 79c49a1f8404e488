"""Processes that train as one: how they start and join, who this is, what all have, batch norm over all; alone, nothing changes."""

import ctypes
import logging
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
import torch
import torch.distributed as dist
from torch import Tensor, nn
from care.errors import CareError
from care.train.checkpoint import local_copy
from shards import storage
from shards.cores import threads_per_process
from shards.errors import Stopped
from shards.terminal import console

RESTARTS = 3  # times that all processes are started again after one has died; they continue from the last checkpoint


def world() -> int:
    """Processes in the default group; 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_world() -> int:
    """Processes on this machine that train together and share its cores; 1 without others."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def limit_threads() -> None:
    """Have torch compute with no more threads than this process may have; fewer stay as they are.

    Torch itself obeys the affinity and ``OMP_NUM_THREADS``, but not a container's quota.
    """
    if (most := threads_per_process(local_world())) < torch.get_num_threads():
        torch.set_num_threads(most)


def resume_threads(threads: int) -> None:
    """Compute with the threads of a checkpoint, if this process may have as many.

    Args:
        threads: their number; with another one the gradient of a convolution has other bits.
    """
    if threads <= threads_per_process(local_world()):
        torch.set_num_threads(threads)
    elif rank() == 0:
        kept = torch.get_num_threads()
        console.print(
            f"[yellow]the run had {threads} threads, here it has {kept}: its bits may differ from "
            "those of a run that was not interrupted, in rounding",
            soft_wrap=True,
        )


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        dist.all_gather_into_tensor(everyones := x.new_empty(world() * len(x), *x.shape[1:]), x)
        return everyones

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        dist.all_reduce(gradient := gradient.clone(memory_format=torch.contiguous_format))
        return gradient.chunk(world())[rank()]


def gathered(x: Tensor) -> Tensor:
    """Every process's rows ``[b, …]``, in rank order: ``[world · b, …]``; gradients are those of the sum of all processes' losses."""
    return _Gathered.apply(x.contiguous()) if world() > 1 else x


def largest(*values: float) -> list[float]:
    """The largest of every process's values, each by itself."""
    tensor = torch.tensor(
        values,
        dtype=torch.float64,
        device="cuda" if world() > 1 and dist.get_backend() == "nccl" else "cpu",
    )
    if world() > 1:
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return list(map(float, tensor))


def parallel(model: nn.Module) -> nn.Module:
    """The module to call instead of ``model``, whose gradients are then the mean of all processes'; alone, ``model`` itself."""
    if world() == 1:
        return model
    with warnings.catch_warnings(
        action="ignore", category=FutureWarning
    ):  # torch 2.15 renames an argument, 2.11 has only this name
        # looking for unused parameters keeps DDP from summing in another order after the first step: bits can be repeated
        cpu = next(model.parameters()).device.type == "cpu"
        return nn.parallel.DistributedDataParallel(
            model, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=cpu
        )


class CPUSyncNorm(nn.modules.batchnorm._BatchNorm):
    """What ``SyncBatchNorm``, which refuses CPU tensors, is on GPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, …] → the same shape."""
        if not self.training:
            known = self.running_mean, self.running_var, self.weight, self.bias
            return nn.functional.batch_norm(
                x, *known, training=self.running_mean is None, eps=self.eps
            )
        dims, shape = [0, *range(2, x.ndim)], (1, -1, *(1,) * (x.ndim - 2))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        means, variances = gathered(
            torch.stack((wide.mean(dims), wide.var(dims, correction=0)))[None]
        ).unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        if (
            self.running_mean is not None
            and self.running_var is not None
            and self.num_batches_tracked is not None
        ):
            count = x.numel() // x.shape[1] * world()
            self.num_batches_tracked += 1
            weight = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), weight)
            self.running_var.lerp_(
                (variance.detach() * count / (count - 1)).to(self.running_var.dtype), weight
            )
        out = (wide - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        return (out * self.weight.view(shape) + self.bias.view(shape) if self.affine else out).to(
            x.dtype
        )


def synchronise(module: nn.Module) -> None:
    """Give torch's batch norms in ``module`` the statistics of all processes, in place: parameters, buffers and their names stay."""
    others = set[str]()
    for norm in module.modules() if world() > 1 else ():
        if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            norm.__class__ = (
                nn.SyncBatchNorm
                if any(x.is_cuda for x in norm.state_dict().values())
                else CPUSyncNorm
            )
            norm.process_group = None  # type: ignore[assignment]
        elif isinstance(norm, nn.modules.batchnorm._BatchNorm):
            others.add(type(norm).__name__)
    if others and rank() == 0:
        console.print(
            f"[yellow]each process keeps the statistics of its own images in {', '.join(sorted(others))}"
        )


@contextmanager
def joined(run: str | Path) -> Iterator[None]:
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
