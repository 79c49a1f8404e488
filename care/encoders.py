"""CNN encoders, image → (feature map at a tap, pooled features): ResNets under torchvision's parameter names, and any other CNN."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import get_model, list_models, resnet
from care.errors import CareError

STAGES = ("layer1", "layer2", "layer3", "layer4")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in eval mode for the length of the block."""
    with ExitStack() as after:
        after.callback(module.train, module.training)
        module.eval()
        yield


class Encoded(NamedTuple):
    """The tapped feature map, input of the T-stream, and the pooled last map, of the C-stream's projector and of every evaluation."""

    map: Float[Tensor, "b c h w"]
    features: Float[Tensor, "b d"]


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


class TappedEncoder(nn.Module):
    """Any CNN itself, less a linear layer that it ends in: its pooled features, and the map of its module ``tap``; none: ``CareError``."""

    def __init__(self, model: nn.Module, tap: str, *, name: str = "") -> None:
        super().__init__()
        self.model, self.tap, self.name, self.size = (
            model,
            tap,
            name,
            224,
        )  # px: side of the images it is trained on
        with evaluating(model), torch.no_grad():
            weighted = [
                path
                for path, module in model.named_modules()
                if path and next(module.parameters(), None) is not None
            ]
            outputs, features = self._run(
                next(model.parameters()).new_zeros(1, 3, 224, 224), weighted
            )
            for path, output in outputs.items():
                if output is features and isinstance(model.get_submodule(path), nn.Linear):
                    model.set_submodule(path, nn.Identity())
                    features = model(features.new_zeros(1, 3, 224, 224))
        if not isinstance(features, Tensor) or features.ndim != 2:
            raise CareError(
                f"wanted a network that gives pooled features [b, d], {type(model).__name__} gives something else"
            )
        self.features = features.shape[1]
        maps = {
            path: x.shape
            for path, x in outputs.items()
            if isinstance(x, Tensor) and x.ndim == 4 and x.shape[2] == x.shape[3] > 1
        }
        # the last module at each resolution; what lies deeper than stages may be a later stage's beginning, before its stride
        self.stages = [
            *{shape[2]: path for path, shape in maps.items() if path.count(".") < 2}.values()
        ]
        if tap not in maps:
            listed = ", ".join(
                "{} ({}×{}×{})".format(path, *maps[path][1:]) for path in self.stages
            )
            raise CareError(
                f"{tap!r} is no tap of this {type(model).__name__}; the last of each size (at 224 px) are: {listed}"
            )

    def _run(self, images: Tensor, paths: Iterable[str]) -> tuple[dict[str, Any], Any]:
        # hooks for the time of one call: one that stays would, in a copy, still write into the original
        out = dict[str, Any]()
        with ExitStack() as hooks:
            for path in paths:
                hooks.enter_context(
                    self.model.get_submodule(path).register_forward_hook(
                        lambda *call, at=path: out.update({at: call[2]})
                    )
                )
            return out, self.model(images)

    def maps(self, images: Float[Tensor, "b 3 h w"]) -> dict[str, Float[Tensor, "b c h2 w2"]]:
        """The last map of each resolution, by name of the module."""
        return self._run(images, self.stages)[0]

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Encoded:
        """Encode images normalised by ImageNet's mean and standard deviation."""
        outputs, features = self._run(images, [self.tap])
        return Encoded(outputs[self.tap], features)


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


def map_shape(encoder: nn.Module, size: int | tuple[int, int]) -> tuple[int, int, int]:
    """(channels, height, width) of the tapped map for images of ``size`` px (a side, or height and width)."""
    images = next(encoder.parameters()).new_zeros(
        1, 3, *((size, size) if isinstance(size, int) else size)
    )
    with evaluating(encoder), torch.no_grad():
        return tuple(encoder(images).map.shape[1:])
