"""Batch norm whose statistics are those of all processes."""

import torch
from torch import Tensor, nn
from care.train.ranks import gather_rows, rank, world
from shards.terminal import console


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
        means, variances = gather_rows(
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
