"""Projectors and predictors: the small networks behind encoder and transformer (Sec. 4.1)."""

from torch import nn


def mlp_head(
    inputs: int,
    *,
    hidden: int = 4096,
    outputs: int = 256,
    layers: int = 2,
    norm: bool = False,
    bias: bool = True,
) -> nn.Sequential:
    """Make a head of linear layers, with batch norm and ReLU behind all but the last.

    The defaults are the paper's, which are BYOL's: 2048 → 4096 → 256 for a projector behind
    ResNet-50, 256 → 4096 → 256 for a predictor.

    Args:
        inputs: channels of the input.
        hidden: channels between the layers.
        outputs: channels of the output.
        layers: number of linear layers, at least 1.
        norm: add a batch norm without scale and shift behind the last layer, which then needs no
            bias. SimSiam's and MoCo v3's projectors have it.
        bias: of the linear layers, as the paper's have; MoCo v3's have none.

    Returns:
        A network from [b, inputs] to [b, outputs].

    Source: Sec. 4.1; released code: ``fc1`` and ``fc2``, whose layers all have a bias.
    """
    modules: list[nn.Module] = []
    width = inputs
    for _ in range(layers - 1):
        modules.append(nn.Linear(width, hidden, bias=bias))
        modules += [nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
        width = hidden
    modules.append(nn.Linear(width, outputs, bias=bias and not norm))
    if norm:
        modules.append(nn.BatchNorm1d(outputs, affine=False))
    return nn.Sequential(*modules)
