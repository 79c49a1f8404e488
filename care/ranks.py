"""Processes that train as one: who this is, what all of them have, batch norm over all. Alone, everything is the identity."""

import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from shards.terminal import console


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
    return _Gathered.apply(x.contiguous()) if world() > 1 else x


def largest(*values: float) -> list[float]:
    """The largest of every process's values, each by itself."""
    tensor = torch.tensor(values, dtype=torch.float64, device="cuda" if world() > 1 and dist.get_backend() == "nccl" else "cpu")
    if world() > 1:
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return list(map(float, tensor))


def parallel(model: nn.Module) -> nn.Module:
    """The module to call instead of ``model``, whose gradients are then the mean of all processes'; alone, ``model`` itself."""
    if world() == 1:
        return model
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # torch 2.15 renames an argument, 2.11 has only this name
        # looking for unused parameters keeps DDP from summing in another order after the first step: bits can be repeated
        cpu = next(model.parameters()).device.type == "cpu"
        return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=cpu)


class CPUSyncNorm(nn.modules.batchnorm._BatchNorm):
    """What ``SyncBatchNorm``, which refuses CPU tensors, is on GPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, …] → the same shape."""
        if not self.training:
            known = self.running_mean, self.running_var, self.weight, self.bias
            return nn.functional.batch_norm(x, *known, training=self.running_mean is None, eps=self.eps)
        dims, shape = [0, *range(2, x.ndim)], (1, -1, *(1,) * (x.ndim - 2))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        means, variances = gathered(torch.stack((wide.mean(dims), wide.var(dims, correction=0)))[None]).unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            count = x.numel() // x.shape[1] * world()
            self.num_batches_tracked += 1
            weight = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), weight)
            self.running_var.lerp_((variance.detach() * count / (count - 1)).to(self.running_var.dtype), weight)
        out = (wide - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        return (out * self.weight.view(shape) + self.bias.view(shape) if self.affine else out).to(x.dtype)


def synchronise(module: nn.Module) -> None:
    """Give torch's batch norms in ``module`` the statistics of all processes, in place: parameters, buffers and their names stay."""
    others = set[str]()
    for norm in module.modules() if world() > 1 else ():
        if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            norm.__class__ = nn.SyncBatchNorm if any(x.is_cuda for x in norm.state_dict().values()) else CPUSyncNorm
            norm.process_group = None  # type: ignore[assignment]
        elif isinstance(norm, nn.modules.batchnorm._BatchNorm):
            others.add(type(norm).__name__)
    if others and rank() == 0:
        console.print(f"[yellow]each process keeps the statistics of its own images in {', '.join(sorted(others))}")
