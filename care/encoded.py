"""What every encoder gives: a feature map at a tap, and pooled features.

An encoder is any module whose ``forward`` returns ``Encoded`` and that has ``features``, their
width. Those of this package are in ``care.encoders`` and ``care.tapped``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.errors import CareError
from shards.image_size import ImageSize, sides

# of a view [b, c, h, w]; patches have one more
IMAGE_AXES = 4


class Encoded(NamedTuple):
    """What an encoder gives of images.

    Attributes:
        map: feature map at the tap, input of the T-stream.
        features: pooled last map, input of the C-stream's projector and of every evaluation.
    """

    map: Float[Tensor, "b c h w"]
    features: Float[Tensor, "b d"]


class InputNormalisation(nn.Module):
    """The first step of an encoder whose pixels are not normalised as ImageNet's.

    Args:
        bands: of its images.

    Attributes:
        scale: of each channel, 1 before it is set.
        shift: what is added then.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, bands: int = 3) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(bands, 1, 1))
        self.register_buffer("shift", torch.zeros(bands, 1, 1))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Of images normalised by ImageNet's mean and deviation those that the encoder expects."""
        return images * self.scale + self.shift


def bands_of(encoder: nn.Module) -> int:
    """How many bands the images of an encoder have: 3, or 4 of one such as ``resnet18-rgbn``."""
    return int(getattr(encoder, "bands", 3))


def refuse_bands(bands: int, encoder: nn.Module) -> None:
    """Refuse another number of bands than an encoder takes.

    Args:
        bands: of the images.
        encoder: whose ``bands`` count.

    Raises:
        CareError: They differ.
    """
    wanted = bands_of(encoder)
    if bands == wanted:
        return
    name = getattr(encoder, "name", "") or f"this {type(encoder).__name__}"
    advice = "choose an encoder of as many bands, such as resnet18-rgbn, or build a set of three"
    if wanted > bands:
        advice = "build the set with --bands 1,2,3,4, or choose an encoder of three bands"
    raise CareError(f"{name} takes images of {wanted} bands, got {bands}; {advice}")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Keep a module in eval mode for the length of the block, then in the mode that it was in."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def map_shape(encoder: nn.Module, size: ImageSize | tuple[int, int]) -> tuple[int, int, int]:
    """Measure the tapped map, by encoding a blank image.

    Args:
        encoder: on any device, left in the mode that it was in.
        size: of the image, pixels, as for ``shards.image_size.sides``.

    Returns:
        Channels, height and width of the map.
    """
    height, width = sides(size)
    image = next(encoder.parameters()).new_zeros(1, bands_of(encoder), height, width)
    with evaluating(encoder), torch.no_grad():
        _, channels, rows, columns = encoder(image).map.shape
    return channels, rows, columns
