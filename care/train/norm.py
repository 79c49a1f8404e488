"""Batch norm whose statistics are those of all processes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.train.ranks import gather_rows, rank, world
from shards.progress import warn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class CPUSyncNorm(nn.modules.batchnorm._BatchNorm):
    """What ``SyncBatchNorm``, which refuses CPU tensors, is on GPUs."""

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        """Normalise by the statistics of the whole batch, in eval mode by the running ones.

        Args:
            x: this process's slice of the batch; that of every process is of one length.
        """
        if not self.training:
            return nn.functional.batch_norm(
                x,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                training=self.running_mean is None,
                eps=self.eps,
            )
        mean, variance = self._statistics(x)
        self._track(mean, variance, count=x.numel() // x.shape[1] * world())
        by_channel = (1, -1, *(1,) * (x.ndim - 2))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = (variance + self.eps).rsqrt()
        out = (wide - mean.view(by_channel)) * scale.view(by_channel)
        if self.affine:
            out = out * self.weight.view(by_channel) + self.bias.view(by_channel)
        return out.to(x.dtype)

    def _statistics(self, x: Tensor) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
        """Mean and variance of each channel over the batches of all processes."""
        dimensions = [0, *range(2, x.ndim)]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        of_process = torch.stack((wide.mean(dimensions), wide.var(dimensions, correction=0)))
        means, variances = gather_rows(of_process[None]).unbind(1)
        mean = means.mean(0)
        return mean, (variances + (means - mean).square()).mean(0)

    def _track(self, mean: Tensor, variance: Tensor, *, count: int) -> None:
        """Move the running statistics towards those of a batch of ``count`` numbers a channel."""
        if (
            self.running_mean is None
            or self.running_var is None
            or self.num_batches_tracked is None
        ):
            return
        self.num_batches_tracked += 1
        weight = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        unbiased = variance.detach() * count / (count - 1)
        self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), weight)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), weight)


def synchronise(module: nn.Module) -> None:
    """Give torch's batch norms in a module the statistics of all processes, in place.

    Parameters, buffers and their names stay. Alone nothing changes. Batch norms of other classes
    are named, and keep the statistics of the images of each process.

    Args:
        module: on the device where it is used.
    """
    if world() == 1:
        return
    others = set[str]()
    for norm in module.modules():
        if type(norm) in BATCH_NORMS:
            is_on_gpu = any(tensor.is_cuda for tensor in norm.state_dict().values())
            norm.__class__ = nn.SyncBatchNorm if is_on_gpu else CPUSyncNorm
            norm.process_group = None  # type: ignore[assignment]
        elif isinstance(norm, nn.modules.batchnorm._BatchNorm):
            others.add(type(norm).__name__)
    if others and rank() == 0:
        warn(f"each process keeps the statistics of its own images in {', '.join(sorted(others))}")
