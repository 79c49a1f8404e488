"""CNN encoders: image → (feature map at a tap, pooled features).

The paper's encoders are torchvision's ResNets (v1.5: stride on the 3×3 convolution). Parameter names are
torchvision's own, so weights go both ways unchanged.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from care.errors import CareError

STAGES = ("layer1", "layer2", "layer3", "layer4")


class Encoded(NamedTuple):
    """What an encoder gives."""

    map: Float[Tensor, "b c h w"]
    """The tapped feature map, input of the T-stream."""
    features: Float[Tensor, "b d"]
    """The pooled last map, input of the C-stream's projector and of every evaluation."""


class ResNetEncoder(ResNet):
    """A torchvision ResNet without its classifier.

    Args:
        block: torchvision's ``BasicBlock`` or ``Bottleneck``.
        layers: blocks in each of the four stages.
        name: the name in ``ENCODERS`` that rebuilds this encoder, recorded in checkpoints.
        tap: the stage whose map feeds the T-stream (the released code: ``layer3``).
        small: a 3×3 stride-2 stem and no max-pooling, for images of 32–96 px: the whole net has stride 16, ``layer3`` has 8.
        width: factor on the channels of all stages; 1 is the standard net.
        base_width: torchvision's ``width_per_group``; 128 is the paper's ResNet-50 (2×).
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: list[int],
        *,
        name: str = "",
        tap: str = "layer3",
        small: bool = False,
        width: float = 1,
        base_width: int = 64,
    ) -> None:
        if tap not in STAGES:
            raise CareError(f"wanted a tap among {', '.join(STAGES)}, got {tap!r}")
        self.width = width
        super().__init__(block, layers, zero_init_residual=True, width_per_group=base_width)
        if small:
            self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
            self.maxpool = nn.Identity()
        self.name, self.tap, self.features = name, tap, int(512 * width) * block.expansion
        del self.fc
        self.size = 224  # side of the images it is trained on, pixels

    def _make_layer(
        self, block: type[BasicBlock | Bottleneck], planes: int, blocks: int, stride: int = 1, dilate: bool = False
    ) -> nn.Sequential:
        stage: nn.Sequential = super()._make_layer(block, int(planes * self.width), blocks, stride, dilate)
        return stage

    def maps(self, images: Float[Tensor, "b 3 h w"]) -> dict[str, Float[Tensor, "b c h2 w2"]]:
        """The map after each stage, by name."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = {}
        for stage in STAGES:
            maps[stage] = x = getattr(self, stage)(x)
        return maps

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Encoded:
        """Encode images normalised by ImageNet's mean and standard deviation."""
        maps = self.maps(images)
        return Encoded(maps[self.tap], maps["layer4"].mean((2, 3)))


def resnet18(*, small: bool = False, half: bool = False, tap: str = "layer3") -> ResNetEncoder:
    """ResNet-18, 512 features; ``small`` for images of 32–96 px, ``half`` with half the channels (CPUs, demos)."""
    name = "resnet18" + "-small" * small + "-half" * half
    return ResNetEncoder(BasicBlock, [2, 2, 2, 2], name=name, tap=tap, small=small, width=0.5 if half else 1)


def resnet50(*, tap: str = "layer3") -> ResNetEncoder:
    """ResNet-50, 2048 features: the paper's main encoder."""
    return ResNetEncoder(Bottleneck, [3, 4, 6, 3], name="resnet50", tap=tap)


def resnet50x2(*, tap: str = "layer3") -> ResNetEncoder:
    """The paper's ResNet-50 (2×): twice the inner width (torchvision's ``wide_resnet50_2``), 2048 features."""
    return ResNetEncoder(Bottleneck, [3, 4, 6, 3], name="resnet50x2", tap=tap, base_width=128)


def resnet101(*, tap: str = "layer3") -> ResNetEncoder:
    """ResNet-101, 2048 features."""
    return ResNetEncoder(Bottleneck, [3, 4, 23, 3], name="resnet101", tap=tap)


def resnet152(*, tap: str = "layer3") -> ResNetEncoder:
    """ResNet-152, 2048 features."""
    return ResNetEncoder(Bottleneck, [3, 8, 36, 3], name="resnet152", tap=tap)


ENCODERS: dict[str, Callable[[], ResNetEncoder]] = {
    "resnet18": resnet18,
    "resnet18-small": partial(resnet18, small=True),
    "resnet18-half": partial(resnet18, half=True),
    "resnet18-small-half": partial(resnet18, small=True, half=True),
    "resnet50": resnet50,
    "resnet50x2": resnet50x2,
    "resnet101": resnet101,
    "resnet152": resnet152,
}
"""What ``--encoder`` takes and a checkpoint records to rebuild its encoder."""


def build_encoder(name: str) -> ResNetEncoder:
    """The freshly initialised encoder called ``name`` (from torch's global generator).

    Raises:
        CareError: no encoder has that name.
    """
    if name not in ENCODERS:
        raise CareError(f"no encoder is called {name!r}; choose one of {', '.join(ENCODERS)}")
    return ENCODERS[name]()


def map_shape(encoder: nn.Module, size: int | tuple[int, int]) -> tuple[int, int, int]:
    """(channels, height, width) of the tapped map for images of ``size`` px (a side, or height and width)."""
    height, width = (size, size) if isinstance(size, int) else size
    training = encoder.training
    try:
        with torch.no_grad():
            encoded: Encoded = encoder.eval()(next(encoder.parameters()).new_zeros(1, 3, height, width))
    finally:
        encoder.train(training)
    _, channels, rows, columns = encoded.map.shape
    return channels, rows, columns
