"""The encoders by name: ResNets without classifier, ViTs, any CNN of torchvision or timm.

Parameter names are torchvision's own, so weights go both ways unchanged. The ResNets are of v1.5,
with the stride on the 3×3 convolution, as the paper's are.
"""

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any, Literal
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import get_model, list_models, resnet
from care.colour_split import SPACES, ColourSplitEncoder, with_channels
from care.encoded import Encoded, InputNormalisation, refuse_bands
from care.errors import CareError
from care.tapped import TappedEncoder
from care.vit import VITS, ViTEncoder
from shards.image_size import ImageSize

STAGES = ("layer1", "layer2", "layer3", "layer4")
# what is before the stages: a 7×7 convolution of stride 2 and pooling, or a 3×3 one without
Stem = Literal["imagenet", "small", "cifar", "cifar-pad2"]
_STRIDE_AND_PADDING = {"small": (2, 1), "cifar": (1, 1), "cifar-pad2": (1, 2)}
GRAY = "-gray"  # at the end of the name of a network of one channel
RGBN = "-rgbn"  # of one of four bands, such as red, green, blue and near infrared
# parts of red, green and blue in the one channel of gray (ITU-R BT.601), as Pillow's
LUMA = (0.299, 0.587, 0.114)


class ResNetEncoder(resnet.ResNet):
    """A ResNet without classifier.

    Args:
        block: torchvision's ``BasicBlock`` or ``Bottleneck``.
        layers: blocks in each of the four stages.
        name: of the network in ``ENCODERS``, without variant and tap.
        tap: the stage whose map feeds the T-stream; the released code's is layer3.
        stem: ``imagenet`` is torchvision's. ``small`` is a 3×3 convolution of stride 2 without
            pooling, for images of 48–96 px: layer3 then has an eighth of the image's side, layer4 a
            sixteenth. ``cifar`` has stride 1, for 32 px: a quarter and an eighth; it is SimCLR's
            (App. B.9) and that of most code for CIFAR. ``cifar-pad2`` is solo-learn's, with a
            padding of 2.
        small: the same as the stem ``small``.
        half: half of the channels in every stage.
        base_width: torchvision's ``width_per_group``; 128 is the paper's ResNet-50 (2×).
        gray: a first convolution of one channel, as for X-rays and microscopes: the gray of the
            three that it is given, which are normalised before.
        bands: of the images; 4 has a first convolution of red, green, blue and one more band, which
            comes from 0 to 1 and is normalised by what ``input`` holds.

    Attributes:
        name: what ``build_encoder`` rebuilds it from, recorded in checkpoints.
        features: channels of the pooled features.
        size: of the images that it is trained on, pixels, see ``shards.image_size``.
        assumed: what is supposed of it that its weights do not tell; "" of our own.
        variant: what decides its features and its weights do not tell: of 3×3 stems that are not
            ``small``, which one it is.

    Raises:
        CareError: There is no stage of the tap's name.
    """

    def __init__(  # noqa: PLR0913 (each is a choice of the architecture)
        self,
        block: type[resnet.BasicBlock | resnet.Bottleneck],
        layers: list[int],
        *,
        name: str = "",
        tap: str = "layer3",
        stem: Stem = "imagenet",
        small: bool = False,
        half: bool = False,
        base_width: int = 64,
        gray: bool = False,
        bands: int = 3,
    ) -> None:
        if tap not in STAGES:
            raise CareError(f"wanted a tap among {', '.join(STAGES)}, got {tap!r}")
        self.half = half
        super().__init__(block, layers, zero_init_residual=True, width_per_group=base_width)
        stem = "small" if small else stem
        channels = 1 if gray else bands
        if stem != "imagenet":
            stride, padding = _STRIDE_AND_PADDING[stem]
            self.conv1 = nn.Conv2d(channels, 64, 3, stride=stride, padding=padding, bias=False)
            self.maxpool = nn.Identity()
        elif channels != 3:
            self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        if stem != "imagenet" or channels != 3:
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.name = _full_name(name, tap=tap, stem=stem, half=half, gray=gray, bands=bands)
        self.gray = gray
        self.bands = bands
        self.tap = tap
        last_planes = 256 if half else 512
        self.features = last_planes * block.expansion
        self.size: ImageSize = 224
        self.assumed = ""
        self.variant = "" if stem in ("imagenet", "small") else stem
        # or what others normalise pixels by, and what the fourth band is normalised by
        self.input: nn.Module = InputNormalisation(bands) if bands > 3 else nn.Identity()
        del self.fc

    def _make_layer(self, block: Any, planes: int, *more: Any, **options: Any) -> Any:
        """Build a stage: torchvision's own method, given half of the channels."""
        if self.half:
            planes //= 2
        return super()._make_layer(block, planes, *more, **options)

    def maps(self, images: Float[Tensor, "b _ h w"]) -> dict[str, Float[Tensor, "b c h2 w2"]]:
        """Compute the map after each stage, by name."""
        refuse_bands(images.shape[1], self)
        x = self.stem(images)
        maps = {}
        for stage in STAGES:
            x = getattr(self, stage)(x)
            maps[stage] = x
        return maps

    def stem(self, images: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Compute the map before the first stage."""
        pixels = self.input(images)
        if self.gray:
            # not a product of matrices, which autocast or TF32 would round
            parts = pixels * pixels.new_tensor(LUMA)[:, None, None]
            pixels = parts.sum(dim=1, keepdim=True)
        stem: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(pixels))))
        return stem

    def forward(self, images: Float[Tensor, "b _ h w"]) -> Encoded:
        """Encode images normalised by ImageNet's mean and standard deviation."""
        maps = self.maps(images)
        return Encoded(maps[self.tap], maps["layer4"].mean((2, 3)))


def _full_name(name: str, *, tap: str, stem: Stem, half: bool, gray: bool, bands: int) -> str:
    """What ``build_encoder`` takes, or "" of a network without a name."""
    if not name:
        return ""
    if stem != "imagenet":
        name += f"-{stem}"
    if half:
        name += "-half"
    if gray:
        name += GRAY
    if bands > 3:
        name += RGBN
    return name if tap == "layer3" else f"{name}:{tap}"


# each takes ``tap``, ``stem``, ``half``, ``gray`` and ``bands``
resnet18 = partial(ResNetEncoder, resnet.BasicBlock, [2, 2, 2, 2], name="resnet18")
resnet34 = partial(ResNetEncoder, resnet.BasicBlock, [3, 4, 6, 3], name="resnet34")
resnet50 = partial(ResNetEncoder, resnet.Bottleneck, [3, 4, 6, 3], name="resnet50")
resnet50x2 = partial(resnet50, name="resnet50x2", base_width=128)
resnet101 = partial(ResNetEncoder, resnet.Bottleneck, [3, 4, 23, 3], name="resnet101")
resnet152 = partial(ResNetEncoder, resnet.Bottleneck, [3, 8, 36, 3], name="resnet152")

# what --encoder takes and a checkpoint records
ENCODERS: dict[str, Callable[..., ResNetEncoder]] = {
    "resnet18": resnet18,
    "resnet18-small": partial(resnet18, stem="small"),
    "resnet18-half": partial(resnet18, half=True),
    "resnet18-small-half": partial(resnet18, stem="small", half=True),
    "resnet18-cifar": partial(resnet18, stem="cifar"),
    "resnet18-cifar-half": partial(resnet18, stem="cifar", half=True),
    "resnet18-cifar-pad2": partial(resnet18, stem="cifar-pad2"),
    "resnet34": resnet34,
    "resnet34-small": partial(resnet34, stem="small"),
    "resnet34-cifar": partial(resnet34, stem="cifar"),
    "resnet34-cifar-pad2": partial(resnet34, stem="cifar-pad2"),
    "resnet50": resnet50,
    "resnet50-small": partial(resnet50, stem="small"),
    "resnet50-cifar": partial(resnet50, stem="cifar"),
    "resnet50-cifar-pad2": partial(resnet50, stem="cifar-pad2"),
    "resnet50x2": resnet50x2,
    "resnet101": resnet101,
    "resnet152": resnet152,
    "resnet18-gray": partial(resnet18, gray=True),
    "resnet18-small-gray": partial(resnet18, stem="small", gray=True),
    "resnet18-small-half-gray": partial(resnet18, stem="small", half=True, gray=True),
    "resnet18-cifar-gray": partial(resnet18, stem="cifar", gray=True),
    "resnet18-cifar-pad2-gray": partial(resnet18, stem="cifar-pad2", gray=True),
    "resnet34-gray": partial(resnet34, gray=True),
    "resnet50-gray": partial(resnet50, gray=True),
    "resnet50-small-gray": partial(resnet50, stem="small", gray=True),
    "resnet50-cifar-gray": partial(resnet50, stem="cifar", gray=True),
    "resnet50-cifar-pad2-gray": partial(resnet50, stem="cifar-pad2", gray=True),
    "resnet18-rgbn": partial(resnet18, bands=4),
    "resnet18-small-rgbn": partial(resnet18, stem="small", bands=4),
    "resnet18-small-half-rgbn": partial(resnet18, stem="small", half=True, bands=4),
    "resnet34-rgbn": partial(resnet34, bands=4),
    "resnet50-rgbn": partial(resnet50, bands=4),
    "resnet50-small-rgbn": partial(resnet50, stem="small", bands=4),
}
Encoder = ResNetEncoder | TappedEncoder | ViTEncoder | ColourSplitEncoder
# how an encoder is asked for, in words
ENCODER_NAMES = f"{', '.join((*ENCODERS, *VITS))}, torchvision:MODEL:TAP or timm:MODEL:TAP"


def build_encoder(name: str) -> Encoder:
    """Make a new encoder, its weights drawn from torch's global generator.

    Args:
        name: of ``ENCODERS``; with another tap, as in ``resnet50:layer4``; of ``VITS``; or any
            CNN, as ``torchvision:MODEL:TAP`` or ``timm:MODEL:TAP``. Behind ``lab:`` or ``ydbdr:``
            it is two ResNets, of the lightness and of the colours of an image.

    Raises:
        CareError: No encoder or tap has that name, or timm is not installed.
    """
    source, _, rest = name.partition(":")
    if source in ENCODERS:
        return ENCODERS[source](tap=rest or "layer3")
    if name in VITS:
        return VITS[name]()
    if source in SPACES:
        return _split(source, rest)
    if source not in ("torchvision", "timm"):
        matches = get_close_matches(source, [*ENCODERS, *VITS], 1)
        meant = f"; did you mean {matches[0]}?" if matches else ""
        raise CareError(f"no encoder is called {name!r}; choose one of {ENCODER_NAMES}{meant}")
    model, _, tap = rest.partition(":")
    create, models = _library(source)
    if model not in models:
        alike = ", ".join(get_close_matches(model, models, 5)) or "nothing alike"
        raise CareError(f"{source} has no model {model!r}; it has {alike}")
    return TappedEncoder(create(model), tap, name=name)


def _split(space: str, name: str) -> ColourSplitEncoder:
    """Two ResNets of a name, of the lightness and of the colours of an image."""
    networks = [build_encoder(name) for _ in range(2)]
    lightness, colour = networks
    full_name = f"{space}:{lightness.name}"
    return ColourSplitEncoder(
        with_channels(lightness, 1), with_channels(colour, 2), space, name=full_name
    )


def _library(source: str) -> tuple[Callable[[str], nn.Module], list[str]]:
    """What makes a network of torchvision or timm, and the names that it knows."""
    if source == "torchvision":
        return get_model, list_models()
    try:
        import timm
    except ImportError:
        raise CareError("timm is not installed; pip install 'care-ssl[timm]'") from None
    return timm.create_model, timm.list_models()
