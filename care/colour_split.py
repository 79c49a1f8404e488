"""Lightness and colour of an image, each through an encoder of its own (CMC)."""

from typing import NamedTuple
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.encoded import Encoded, bands_of, refuse_bands
from care.errors import CareError
from shards.image_size import ImageSize

# ImageNet's mean and deviation, by which images come normalised
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
# linear light of sRGB to CIE XYZ, each divided by that of the white point D65
_XYZ = (
    (0.412453 / 0.95047, 0.357580 / 0.95047, 0.180423 / 0.95047),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.08883, 0.119193 / 1.08883, 0.950227 / 1.08883),
)
# of SECAM: luma, and differences of blue and of red from it
_YDBDR = ((0.299, 0.587, 0.114), (-0.450, -0.883, 1.333), (-1.333, 1.116, 0.217))


class ColourSpace(NamedTuple):
    """What the channels of a colour space are normalised by.

    Attributes:
        mean: of lightness and of two channels of colour.
        std: likewise.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# Lab's are the middles and halves of its ranges, from CMC's code; the others from PyContrast's
SPACES: dict[str, ColourSpace] = {
    "lab": ColourSpace((50.0, 6.025, -6.6895), (50.0, 92.208, 101.1675)),
    "ydbdr": ColourSpace((0.457, -0.082, -0.052), (0.500, 1.331, 1.333)),
}


class ColourSplitEncoder(nn.Module):
    """Two encoders, of the lightness of an image and of its colours.

    Its features are those of both, beside each other, and so is its map.

    Args:
        lightness: an encoder of one channel.
        colour: an encoder of two channels, its tap the same.
        space: in which images are split, "lab" or "ydbdr".
        name: what ``build_encoder`` rebuilds it from, recorded in checkpoints.

    Attributes:
        features: channels of the pooled features of both.
        branches: number of encoders, whose features are of equal width.
        size: of the images that it is trained on, pixels, see ``shards.image_size``.
        assumed: what is supposed of it that its weights do not tell; "" of our own.
        variant: what decides its features and its weights do not tell: the space.

    Source: Tian, Krishnan and Isola 2020, Contrastive multiview coding.
    """

    branches = 2

    def __init__(
        self, lightness: nn.Module, colour: nn.Module, space: str, *, name: str = ""
    ) -> None:
        super().__init__()
        self.lightness = lightness
        self.colour = colour
        self.space = space
        self.name = name
        self.features = int(lightness.features) + int(colour.features)  # type: ignore[arg-type]
        self.size: ImageSize = 224
        self.assumed = ""
        self.variant = space
        self.input: nn.Module = nn.Identity()

    def maps(self, images: Float[Tensor, "b _ h w"]) -> dict[str, Float[Tensor, "b c h2 w2"]]:
        """Compute the map of both after each stage, by name."""
        refuse_bands(images.shape[1], self)
        channels = split_colours(self.input(images), self.space)
        of_lightness = self.lightness.maps(channels[:, :1])  # type: ignore[operator]
        of_colour = self.colour.maps(channels[:, 1:])  # type: ignore[operator]
        return {
            stage: torch.cat((of_lightness[stage], of_colour[stage]), dim=1)
            for stage in of_lightness
        }

    def forward(self, images: Float[Tensor, "b _ h w"]) -> Encoded:
        """Encode images normalised by ImageNet's mean and standard deviation."""
        refuse_bands(images.shape[1], self)
        channels = split_colours(self.input(images), self.space)
        of_lightness = self.lightness(channels[:, :1])
        of_colour = self.colour(channels[:, 1:])
        return Encoded(
            torch.cat((of_lightness.map, of_colour.map), dim=1),
            torch.cat((of_lightness.features, of_colour.features), dim=1),
        )


def split_colours(images: Float[Tensor, "b 3 h w"], space: str) -> Float[Tensor, "b 3 h w"]:
    """Lightness, and two channels of colour, normalised.

    Args:
        images: normalised by ImageNet's mean and standard deviation.
        space: of the channels.
    """
    # a power of a value near 0 has no digits left in bfloat16
    wide = images if images.dtype == torch.float64 else images.float()
    rgb = wide * _channels(_STD, wide) + _channels(_MEAN, wide)
    converted = _lab(rgb.clamp(0, 1)) if space == "lab" else _mixed(rgb, _YDBDR)
    mean, std = SPACES[space]
    return ((converted - _channels(mean, wide)) / _channels(std, wide)).to(images.dtype)


def with_channels(network: nn.Module, channels: int) -> nn.Module:
    """Give a ResNet a first convolution for images of other channels.

    Args:
        network: a ``ResNetEncoder``; its other weights stay.
        channels: of the images.

    Raises:
        CareError: It is another network.
    """
    convolution = getattr(network, "conv1", None)
    is_gray = getattr(network, "gray", False)
    if not isinstance(convolution, nn.Conv2d) or is_gray or bands_of(network) != 3:
        raise CareError("wanted a ResNet of colours behind lab: or ydbdr:, such as lab:resnet50")
    network.conv1 = nn.Conv2d(
        channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        stride=convolution.stride,  # type: ignore[arg-type]
        padding=convolution.padding,  # type: ignore[arg-type]
        bias=False,
    )
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.bands = channels  # type: ignore[assignment]
    network.name = ""  # type: ignore[assignment]
    return network


def _channels(numbers: tuple[float, ...], images: Tensor) -> Tensor:
    """A number for each channel, to be broadcast over images."""
    return torch.tensor(numbers, dtype=images.dtype, device=images.device)[:, None, None]


def _mixed(
    images: Float[Tensor, "b 3 h w"], matrix: tuple[tuple[float, float, float], ...]
) -> Float[Tensor, "b 3 h w"]:
    """Sums of an image's channels by the rows of a matrix.

    No product of matrices and no convolution: autocast or TF32 would round these.
    """
    sums = [(images * _channels(row, images)).sum(dim=1) for row in matrix]
    return torch.stack(sums, dim=1)


def _lab(rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """CIE L*a*b* of sRGB in 0…1, for the white point D65."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = _mixed(linear, _XYZ)
    roots = torch.where(xyz > 0.008856, xyz.clamp_min(0.008856) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = roots.unbind(1)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=1)
