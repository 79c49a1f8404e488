"""Projector and predictor: the two-layer heads of both streams."""

from torch import nn


def mlp_head(inputs: int, *, hidden: int = 4096, outputs: int = 256) -> nn.Sequential:
    """Linear, batch norm, ReLU, Linear: [b, inputs] → [b, outputs] (Sec. 4.1, following BYOL)."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs))
