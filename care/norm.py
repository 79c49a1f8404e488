"""Batch norm whose statistics are those of all processes, on GPUs and on CPUs."""

import torch
from torch import Tensor, nn

from care import ranks


class SyncNorm(nn.SyncBatchNorm):
    """Torch's ``SyncBatchNorm`` for CPU tensors too, which that one refuses; on one process torch's ``BatchNorm``."""

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, …] → the same shape."""
        if x.is_cuda:
            return super().forward(x)
        if not self.training or ranks.world() == 1:
            alone: Tensor = nn.modules.batchnorm._BatchNorm.forward(self, x)
            return alone
        dims, shape = [0, *range(2, x.ndim)], (1, -1, *(1,) * (x.ndim - 2))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = ranks.mean(wide.mean(dims))
        centred = wide - mean.view(shape)
        variance = ranks.mean(centred.square().mean(dims))
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            count = x.numel() // x.shape[1] * ranks.world()
            self.num_batches_tracked += 1
            weight = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), weight)
            self.running_var.lerp_((variance.detach() * count / (count - 1)).to(self.running_var.dtype), weight)
        out = centred * (variance + self.eps).rsqrt().view(shape)
        return (out * self.weight.view(shape) + self.bias.view(shape) if self.affine else out).to(x.dtype)


def synchronise(module: nn.Module) -> None:
    """Turn the batch norms in ``module`` into ``SyncNorm``, in place: parameters, buffers and their names stay."""
    for norm in module.modules():
        if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            norm.__class__, norm.process_group = SyncNorm, None  # type: ignore[assignment]
