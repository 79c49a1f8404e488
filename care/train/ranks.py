"""Processes that train as one: who this is, what all of them have, and how many threads each may use; alone, nothing changes."""

import os
import warnings
from typing import Any
import torch
import torch.distributed as dist
from torch import Tensor, nn
from shards.cores import threads_per_process
from shards.terminal import console


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


def gather_rows(x: Tensor) -> Tensor:
    """Every process's rows ``[b, …]``, in rank order: ``[world · b, …]``; gradients are those of the sum of all processes' losses."""
    return _Gathered.apply(x.contiguous()) if world() > 1 else x


def max_over_ranks(*values: float) -> list[float]:
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
