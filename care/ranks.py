"""Processes that train as one: who this is, sums and batches over all of them with their gradients. Alone, everything is the identity."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F


def world() -> int:
    """Processes in the default group; 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def mean(x: Tensor) -> Tensor:
    """Elementwise mean of every process's ``x``, of one shape."""
    return all_reduce(x.contiguous()) / world() if world() > 1 else x


def gathered(x: Tensor) -> Tensor:
    """Every process's rows ``[b, …]``, in rank order: ``[world · b, …]``."""
    if world() == 1:
        return x
    before, after = rank() * len(x), (world() - 1 - rank()) * len(x)
    return all_reduce(F.pad(x, (0, 0) * (x.ndim - 1) + (before, after)))


def largest(*values: float) -> list[float]:
    """The largest of every process's values, each by itself."""
    if world() == 1:
        return list(values)
    where = "cuda" if dist.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor(values, dtype=torch.float64, device=where)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    found: list[float] = tensor.tolist()
    return found
