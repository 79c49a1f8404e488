"""Processes that train as one: who this is, what all of them have, how many threads each has.

Alone nothing changes: every function here is then the identity.
"""

import os
import warnings
from typing import Any
import torch
import torch.distributed as dist
from jaxtyping import Int, Shaped
from torch import Tensor, nn
from care.errors import CareError
from shards.cores import threads_per_process
from shards.progress import warn


def world() -> int:
    """Processes in the default group, 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_world() -> int:
    """Processes on this machine that train together and share its cores, at least 1."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def limit_threads() -> None:
    """Have torch compute with no more threads than this process may have.

    Fewer stay as they are. Torch itself obeys the affinity and ``OMP_NUM_THREADS``, but not a
    container's quota.
    """
    most = threads_per_process(local_world())
    if most < torch.get_num_threads():
        torch.set_num_threads(most)


def resume_threads(threads: int) -> None:
    """Compute with the threads of a checkpoint, if this process may have as many.

    Args:
        threads: their number; with another one the gradient of a convolution has other bits.
    """
    if threads <= threads_per_process(local_world()):
        torch.set_num_threads(threads)
    elif rank() == 0:
        threads_here = torch.get_num_threads()
        warn(
            f"the run had {threads} threads, here it has {threads_here}: its bits may "
            "differ from those of a run that was not interrupted, in rounding",
        )


class _GatheredRows(torch.autograd.Function):
    """Rows of all processes, with gradients that are summed up over the processes."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        rows = x.new_empty(world() * len(x), *x.shape[1:])
        dist.all_gather_into_tensor(rows, x)
        return rows

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(world())[rank()]


def gather_rows(x: Shaped[Tensor, "b ..."]) -> Shaped[Tensor, "n ..."]:
    """Put the rows of every process after each other, in the order of their numbers.

    Args:
        x: rows of this process, as many as each of the others has.

    Returns:
        Those of all of them. The gradient of ``x`` is that of the sum of all processes' losses.
    """
    if world() == 1:
        return x
    rows: Tensor = _GatheredRows.apply(x.contiguous())
    return rows


def gather_numbers(x: Int[Tensor, " b"]) -> Int[Tensor, " n"]:
    """Put whole numbers of every process after each other, as ``gather_rows`` does with rows."""
    if world() == 1:
        return x
    numbers = x.new_empty(world() * len(x))
    dist.all_gather_into_tensor(numbers, x.contiguous())
    return numbers


def max_over_ranks(*values: float) -> list[float]:
    """The largest of every process's values, each by itself."""
    on_gpu = world() > 1 and dist.get_backend() == "nccl"
    tensor = torch.tensor(values, dtype=torch.float64, device="cuda" if on_gpu else "cpu")
    if world() > 1:
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return [float(value) for value in tensor]


def check_equal_weights(model: nn.Module, step: int) -> None:
    """Refuse to go on where the processes no longer have the same weights.

    Args:
        model: of this process.
        step: that was taken, for the message.

    Raises:
        CareError: Sums over the weights differ between processes.
    """
    if world() == 1:
        return
    weights = [parameter.detach() for parameter in model.parameters()]
    total = float(sum(weight.sum(dtype=torch.float64) for weight in weights))
    squares = float(sum(weight.double().square().sum() for weight in weights))
    sums = [total, squares, -total, -squares]
    if max_over_ranks(*sums) != sums:
        raise CareError(
            f"the processes' weights differ after step {step}; check the machines, "
            "then give the command again"
        )


def parallel(model: nn.Module) -> nn.Module:
    """What to call instead of a model, whose gradients are then the mean of all processes'.

    Args:
        model: with the same weights in every process.

    Returns:
        Alone the model itself, else torch's ``DistributedDataParallel`` around it.
    """
    if world() == 1:
        return model
    # torch 2.15 renames an argument, 2.11 has only this name
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        # looking for unused parameters keeps DDP from summing in another order after the first
        # step: bits can be repeated
        on_cpu = next(model.parameters()).device.type == "cpu"
        return nn.parallel.DistributedDataParallel(
            model,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            find_unused_parameters=on_cpu,
        )
