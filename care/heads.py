"""Projector and predictor: the small networks behind an encoder or a transformer (Sec. 4.1)."""

from torch import nn


def mlp_head(
    inputs: int, *, hidden: int = 4096, outputs: int = 256, layers: int = 2, norm: bool = False
) -> nn.Sequential:
    """Linear, batch norm, ReLU, …, linear: [b, inputs] → [b, outputs] (Sec. 4.1); ``norm`` adds one more, without scale and shift."""
    widths = [inputs, *[hidden] * (layers - 1)]
    blocks = [
        part
        for n in widths[:-1]
        for part in (nn.Linear(n, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True))
    ]
    return nn.Sequential(
        *blocks,
        nn.Linear(widths[-1], outputs, bias=not norm),
        *[nn.BatchNorm1d(outputs, affine=False)] * norm,
    )
