"""What every encoder gives: a feature map at a tap, and pooled features."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple
import torch
from jaxtyping import Float
from torch import Tensor, nn


class Encoded(NamedTuple):
    """The tapped feature map, input of the T-stream, and the pooled last map, of the C-stream's projector and of every evaluation."""

    map: Float[Tensor, "b c h w"]
    features: Float[Tensor, "b d"]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in eval mode for the length of the block."""
    with ExitStack() as after:
        after.callback(module.train, module.training)
        module.eval()
        yield


def map_shape(encoder: nn.Module, size: int | tuple[int, int]) -> tuple[int, int, int]:
    """(channels, height, width) of the tapped map for images of ``size`` px (a side, or height and width)."""
    images = next(encoder.parameters()).new_zeros(
        1, 3, *((size, size) if isinstance(size, int) else size)
    )
    with evaluating(encoder), torch.no_grad():
        return tuple(encoder(images).map.shape[1:])
