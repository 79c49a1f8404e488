"""Processes that train as one: who this is, and what all of them have. Alone, everything is the identity."""

import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def world() -> int:
    """Processes in the default group; 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


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
    out: Tensor = _Gathered.apply(x.contiguous()) if world() > 1 else x
    return out


def largest(*values: float) -> list[float]:
    """The largest of every process's values, each by itself."""
    if world() == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return [float(value) for value in tensor]


def parallel(model: nn.Module) -> nn.Module:
    """The module to call instead of ``model``, whose gradients are then the mean of all processes'; alone, ``model`` itself."""
    if world() == 1:
        return model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.15 renames an argument, 2.11 has only this name
        # looking for unused parameters keeps DDP from summing in another order after the first step: bits can be repeated
        cpu = next(model.parameters()).device.type == "cpu"
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=cpu)
