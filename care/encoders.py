"""CNN encoders, image → (feature map at a tap, pooled features): ResNets under torchvision's parameter names, and any other CNN."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from care.errors import CareError

STAGES = ("layer1", "layer2", "layer3", "layer4")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in eval mode for the length of the block."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


class Encoded(NamedTuple):
    """The tapped feature map, input of the T-stream, and the pooled last map, of the C-stream's projector and of every evaluation."""

    map: Float[Tensor, "b c h w"]
    features: Float[Tensor, "b d"]


class ResNetEncoder(ResNet):
    """A torchvision ResNet (v1.5: stride on the 3×3 convolution) without its classifier, of ``layers`` blocks in the four stages.

    ``name``, one of ``ENCODERS``, rebuilds it and is recorded in checkpoints. ``tap`` is the stage whose map feeds the T-stream (the
    released code: ``layer3``). ``small``, for images of 32–96 px, has a 3×3 stride-2 stem and no max-pooling: stride 16 in all, 8 at
    ``layer3``. ``width`` multiplies all channels; ``base_width`` is torchvision's ``width_per_group``, 128 in the ResNet-50 (2×).
    """

    def __init__(
        self, block: type[BasicBlock | Bottleneck], layers: list[int], *, name: str = "", tap: str = "layer3", small: bool = False,
        width: float = 1, base_width: int = 64,
    ) -> None:  # fmt: skip
        if tap not in STAGES:
            raise CareError(f"wanted a tap among {', '.join(STAGES)}, got {tap!r}")
        self.width = width
        super().__init__(block, layers, zero_init_residual=True, width_per_group=base_width)
        if small:
            self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
            self.maxpool = nn.Identity()
        self.name = f"{name}:{tap}" if name and tap != "layer3" else name
        self.tap, self.features, self.size = tap, int(512 * width) * block.expansion, 224  # px: side of the images it is trained on
        del self.fc

    def _make_layer(self, block: Any, planes: int, *more: Any, **options: Any) -> Any:
        return super()._make_layer(block, int(planes * self.width), *more, **options)

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


def resnet18(*, small: bool = False, half: bool = False, tap: str = "layer3") -> ResNetEncoder:
    """ResNet-18, 512 features; ``small`` for images of 32–96 px, ``half`` with half the channels (CPUs, demos)."""
    name = "resnet18" + "-small" * small + "-half" * half
    return ResNetEncoder(BasicBlock, [2, 2, 2, 2], name=name, tap=tap, small=small, width=0.5 if half else 1)


# the paper's, of 2048 features; the 50 (2×) has twice the inner width, as torchvision's wide_resnet50_2
resnet50 = partial(ResNetEncoder, Bottleneck, [3, 4, 6, 3], name="resnet50")
resnet50x2 = partial(ResNetEncoder, Bottleneck, [3, 4, 6, 3], name="resnet50x2", base_width=128)
resnet101 = partial(ResNetEncoder, Bottleneck, [3, 4, 23, 3], name="resnet101")
resnet152 = partial(ResNetEncoder, Bottleneck, [3, 8, 36, 3], name="resnet152")

ENCODERS: dict[str, Callable[..., ResNetEncoder]] = {  # what --encoder takes and a checkpoint records to rebuild its encoder
    "resnet18": resnet18, "resnet18-small": partial(resnet18, small=True), "resnet18-half": partial(resnet18, half=True),
    "resnet18-small-half": partial(resnet18, small=True, half=True), "resnet50": resnet50, "resnet50x2": resnet50x2,
    "resnet101": resnet101, "resnet152": resnet152,
}  # fmt: skip


class TappedEncoder(nn.Module):
    """Any CNN, used as it is, not copied: its pooled features, and the map that the module of the dotted name ``tap`` gives.

    Widths are read off a trial run at 224 px. A linear layer that it ends in is taken for its classifier and becomes the identity.
    ``name`` is what ``build_encoder`` rebuilds it from, recorded in checkpoints. A ``CareError`` where no module of that name gives a map
    (those before each reduction are listed), or there are no pooled features.
    """

    def __init__(self, model: nn.Module, tap: str, *, name: str = "") -> None:
        super().__init__()
        self.model, self.tap, self.name, self.size = model, tap, name, 224  # px: side of the images it is trained on
        with evaluating(model), torch.no_grad():
            weighted = [path for path, module in model.named_modules() if path and next(module.parameters(), None) is not None]
            outputs, features = self._run(next(model.parameters()).new_zeros(1, 3, 224, 224), weighted)
            for path, output in outputs.items():
                if output is features and isinstance(model.get_submodule(path), nn.Linear):
                    model.set_submodule(path, nn.Identity())
                    features = model(features.new_zeros(1, 3, 224, 224))
        if not isinstance(features, Tensor) or features.ndim != 2:
            raise CareError(f"wanted a network that gives pooled features [b, d], {type(model).__name__} gives something else")
        self.features = features.shape[1]
        maps = {path: x.shape for path, x in outputs.items() if isinstance(x, Tensor) and x.ndim == 4 and x.shape[2] == x.shape[3] > 1}
        # the last module at each resolution; what lies deeper than stages may be a later stage's beginning, before its stride
        self.stages = [*{shape[2]: path for path, shape in maps.items() if path.count(".") < 2}.values()]
        if tap not in maps:
            listed = ", ".join("{} ({}×{}×{})".format(path, *maps[path][1:]) for path in self.stages)
            raise CareError(f"{tap!r} is no tap of this {type(model).__name__}; the last of each size (at 224 px) are: {listed}")

    def _run(self, images: Tensor, paths: Iterable[str]) -> tuple[dict[str, Any], Any]:
        # hooks for the time of one call: one that stays would, in a copy, still write into the original
        outputs = dict[str, Any]()
        with ExitStack() as hooks:
            for path in paths:
                keep = lambda _module, _inputs, output, path=path: outputs.update({path: output})  # noqa: E731
                hooks.enter_context(self.model.get_submodule(path).register_forward_hook(keep))
            return outputs, self.model(images)

    def maps(self, images: Float[Tensor, "b 3 h w"]) -> dict[str, Float[Tensor, "b c h2 w2"]]:
        """The last map of each resolution, by name of the module."""
        return self._run(images, self.stages)[0]

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Encoded:
        """Encode images normalised by ImageNet's mean and standard deviation."""
        outputs, features = self._run(images, [self.tap])
        return Encoded(outputs[self.tap], features)


Encoder = ResNetEncoder | TappedEncoder


def build_encoder(name: str) -> Encoder:
    """A freshly initialised encoder (from torch's global generator).

    By a ``name`` of ``ENCODERS``, with another tap as ``resnet50:layer4``, or any CNN as ``torchvision:MODEL:TAP`` or ``timm:MODEL:TAP``.
    """
    source, _, rest = name.partition(":")
    if source in ENCODERS:
        return ENCODERS[source](tap=rest or "layer3")
    if source not in ("torchvision", "timm"):
        raise CareError(f"no encoder is called {name!r}; choose one of {', '.join(ENCODERS)}, torchvision:MODEL:TAP or timm:MODEL:TAP")
    create, known, (model, _, tap) = models.get_model, models.list_models(), rest.partition(":")
    if source == "timm":
        try:
            import timm
        except ImportError:
            raise CareError("timm is not installed; pip install 'care-ssl[timm]'") from None
        create, known = timm.create_model, timm.list_models()
    if model not in known:
        raise CareError(f"{source} has no model {model!r}; it has {', '.join(get_close_matches(model, known, 5)) or 'nothing alike'}")
    return TappedEncoder(create(model), tap, name=name)


def map_shape(encoder: nn.Module, size: int | tuple[int, int]) -> tuple[int, int, int]:
    """(channels, height, width) of the tapped map for images of ``size`` px (a side, or height and width)."""
    sides = (size, size) if isinstance(size, int) else size
    with evaluating(encoder), torch.no_grad():
        _, channels, height, width = encoder(next(encoder.parameters()).new_zeros(1, 3, *sides)).map.shape
    return channels, height, width
