"""The network in an encoder, as other libraries have it: its weights by their names for them."""

import re
from typing import NamedTuple
import torch
from torch import Tensor
from care.encoders import LUMA, Encoder, ResNetEncoder
from care.tapped import TappedEncoder
from care.train.weights import POSITIONS, cpu_copies
from care.vit import ViTEncoder

_RESNET = re.compile(r"resnet(18|34|50|101|152)(x2)?")


class ResNetForm(NamedTuple):
    """What a ResNet is like, as far as its blocks do not tell.

    Attributes:
        depth: 18, 34, 50, 101 or 152.
        wide: whether its 3×3 convolutions are twice as wide as usual.
        half: whether every stage has half of the usual channels.
        stem: the stride and padding of a 3×3 stem without pooling; None of the usual 7×7 one.
    """

    depth: int
    wide: bool
    half: bool
    stem: tuple[int, int] | None

    @property
    def model_name(self) -> str:
        """What torchvision and timm call it."""
        return f"wide_resnet{self.depth}_2" if self.wide else f"resnet{self.depth}"


def form_of(encoder: ResNetEncoder) -> ResNetForm:
    """What a ResNet is like.

    Args:
        encoder: of a name in ``care.ENCODERS``.
    """
    match = _RESNET.match(encoder.name)
    assert match is not None
    stem = None
    if encoder.conv1.kernel_size == (3, 3):
        stem = (encoder.conv1.stride[0], int(encoder.conv1.padding[0]))
    return ResNetForm(int(match[1]), bool(match[2]), encoder.half, stem)


def weights_of(encoder: Encoder) -> dict[str, Tensor]:
    """The weights of an encoder's network for RGB, by the names that torchvision or timm has.

    The parts of red, green and blue in gray go into the first convolution of a network of one
    channel, whose features of colour images these then are, too.

    Args:
        encoder: any; the step that it may have before its network, of others' pixels, is left out.
    """
    network = encoder.model if isinstance(encoder, TappedEncoder | ViTEncoder) else encoder
    tensors = {
        name: tensor
        for name, tensor in cpu_copies(network.state_dict()).items()
        if not name.startswith("input.")
    }
    if isinstance(encoder, ViTEncoder):
        tensors |= cpu_copies({POSITIONS: position_table(encoder)})
    if isinstance(encoder, ResNetEncoder) and encoder.gray:
        parts = torch.tensor(LUMA)[:, None, None]
        tensors["conv1.weight"] = (tensors["conv1.weight"] * parts).contiguous()
    return tensors


def position_table(encoder: ViTEncoder) -> Tensor:
    """The positions of the patches of images of an encoder's size [1, n, d], zeros first."""
    side = encoder.grid_of(encoder.size)
    table = encoder.positions(side, side)
    return torch.cat((torch.zeros_like(table[:1]), table))[None]


def library_model(encoder: Encoder, library: str) -> str:
    """The name of the model that an encoder is of a library, "" where it is none of it.

    Args:
        encoder: any.
        library: "torchvision" or "timm".
    """
    if not isinstance(encoder, TappedEncoder):
        return ""
    source, _, rest = encoder.name.partition(":")
    return rest.partition(":")[0] if source == library else ""
