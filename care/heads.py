"""Projector and predictor: the small networks behind an encoder or a transformer."""

from itertools import pairwise

from torch import nn


def mlp_head(inputs: int, *, hidden: int = 4096, outputs: int = 256, layers: int = 2, norm: bool = False) -> nn.Sequential:
    """Linear, batch norm, ReLU, Linear: [b, inputs] → [b, outputs] (Sec. 4.1, following BYOL).

    Args:
        inputs: channels.
        hidden: channels between the layers.
        outputs: channels.
        layers: linear layers; all but the last are followed by batch norm and ReLU.
        norm: batch norm without scale and shift on the outputs.
    """
    blocks: list[nn.Module] = []
    for a, b in pairwise([inputs] + [hidden] * (layers - 1)):
        blocks += nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(inplace=True)
    blocks.append(nn.Linear(hidden if layers > 1 else inputs, outputs, bias=not norm))
    return nn.Sequential(*blocks, *[nn.BatchNorm1d(outputs, affine=False)] * norm)
