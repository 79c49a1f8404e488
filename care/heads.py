"""Projector and predictor: the small networks behind an encoder or a transformer."""

from torch import nn


def mlp_head(inputs: int, *, hidden: int = 4096, outputs: int = 256, layers: int = 2, norm: bool = False) -> nn.Sequential:
    """Linear, batch norm, ReLU, Linear: [b, inputs] → [b, outputs], by ``hidden`` channels (Sec. 4.1, following BYOL).

    All but the last of ``layers`` linear layers have batch norm and ReLU; with ``norm`` the outputs have one without scale and shift.
    """
    blocks: list[nn.Module] = []
    for _ in range(layers - 1):
        blocks += nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)
        inputs = hidden
    blocks.append(nn.Linear(inputs, outputs, bias=not norm))
    return nn.Sequential(*blocks, *[nn.BatchNorm1d(outputs, affine=False)] * norm)
