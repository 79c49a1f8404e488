"""CNN encoders: ResNets under torchvision's parameter names, and the table of names."""

from difflib import get_close_matches
from functools import partial
from typing import Any
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import get_model, list_models, resnet
from care.encoded import Encoded
from care.errors import CareError
from care.tapped import TappedEncoder

STAGES = ("layer1", "layer2", "layer3", "layer4")


class ResNetEncoder(resnet.ResNet):
    """torchvision's ResNet (v1.5), no classifier; ``small``, for 32–96 px: 3×3 stride-2 stem, no pooling; ``half`` of the channels."""

    def __init__(
        self,
        block: type[resnet.BasicBlock | resnet.Bottleneck],
        layers: list[int],
        *,
        name: str = "",
        tap: str = "layer3",
        small: bool = False,
        half: bool = False,
        base_width: int = 64,
    ) -> None:
        if tap not in STAGES:
            raise CareError(f"wanted a tap among {', '.join(STAGES)}, got {tap!r}")
        self.half = half
        super().__init__(block, layers, zero_init_residual=True, width_per_group=base_width)
        if small:
            self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
            self.maxpool = nn.Identity()
        self.name = name and name + "-small" * small + "-half" * half + f":{tap}" * (
            tap != "layer3"
        )  # what ``build_encoder`` takes
        self.tap, self.features, self.size = (
            tap,
            (256 if half else 512) * block.expansion,
            224,
        )  # px: side of the images it is trained on
        del self.fc

    def _make_layer(self, block: Any, planes: int, *more: Any, **options: Any) -> Any:
        return super()._make_layer(block, planes // 2 if self.half else planes, *more, **options)

    def maps(self, images: Float[Tensor, "b 3 h w"]) -> dict[str, Float[Tensor, "b c h2 w2"]]:
        """The map after each stage, by name."""
        x, maps = self.maxpool(self.relu(self.bn1(self.conv1(images)))), {}
        for stage in STAGES:
            maps[stage] = x = getattr(self, stage)(x)
        return maps

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Encoded:
        """Encode images normalised by ImageNet's mean and standard deviation."""
        maps = self.maps(images)
        return Encoded(maps[self.tap], maps["layer4"].mean((2, 3)))


resnet18 = partial(ResNetEncoder, resnet.BasicBlock, [2, 2, 2, 2], name="resnet18")

resnet50 = partial(ResNetEncoder, resnet.Bottleneck, [3, 4, 6, 3], name="resnet50")

resnet50x2 = partial(
    ResNetEncoder, resnet.Bottleneck, [3, 4, 6, 3], name="resnet50x2", base_width=128
)

resnet101 = partial(ResNetEncoder, resnet.Bottleneck, [3, 4, 23, 3], name="resnet101")

resnet152 = partial(ResNetEncoder, resnet.Bottleneck, [3, 8, 36, 3], name="resnet152")

ENCODERS = {
    "resnet18": resnet18,
    "resnet18-small": partial(resnet18, small=True),
    "resnet18-half": partial(resnet18, half=True),
    "resnet18-small-half": partial(resnet18, small=True, half=True),
    "resnet50": resnet50,
    "resnet50x2": resnet50x2,
    "resnet101": resnet101,
    "resnet152": resnet152,
}  # what --encoder takes and a checkpoint records

Encoder = ResNetEncoder | TappedEncoder


def build_encoder(name: str) -> Encoder:
    """A new encoder: a ``name`` of ``ENCODERS``, also with a tap, ``resnet50:layer4``, ``torchvision:MODEL:TAP`` or ``timm:MODEL:TAP``."""
    source, _, rest = name.partition(":")
    if source in ENCODERS:
        return ENCODERS[source](tap=rest or "layer3")
    if source not in ("torchvision", "timm"):
        raise CareError(
            f"no encoder is called {name!r}; choose one of {', '.join(ENCODERS)}, torchvision:MODEL:TAP or timm:MODEL:TAP"
        )
    create, known, (model, _, tap) = get_model, list_models(), rest.partition(":")
    if source == "timm":
        try:
            import timm
        except ImportError:
            raise CareError("timm is not installed; pip install 'care-ssl[timm]'") from None
        create, known = timm.create_model, timm.list_models()
    if model not in known:
        raise CareError(
            f"{source} has no model {model!r}; it has {', '.join(get_close_matches(model, known, 5)) or 'nothing alike'}"
        )
    return TappedEncoder(create(model), tap, name=name)
