"""Networks that say the class of every pixel: an encoder, and a head on its last map."""

import copy
from dataclasses import dataclass
from typing import Literal
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F
from care.encoders import Encoder, ResNetEncoder
from care.train import ranks
from care.train.photometrics import normalize
from care.vit import ViTEncoder
from shards.bounds import PositiveInt
from shards.label_files import IGNORED

HEAD_DILATION = 6  # of the two 3×3 convolutions, MoCo's
STAGE_DILATION = 2  # of the last stage, whose stride is 1 then
PROBE_SIDE = 224  # px, of the blank image that the stride is measured on


@dataclass(frozen=True)
class SegmenterShape:
    """What the head of a segmenter is like.

    Attributes:
        head: fcn has two 3×3 convolutions of dilation 6 before its classifier, and is trained with
            the encoder; linear classifies each place of the frozen encoder's last map.
        channels: of the fcn's convolutions.
        dilated: whether a ResNet's last stage has stride 1 and dilation 2, so that its map is twice
            as fine; other encoders' maps are what they are.
    """

    head: Literal["fcn", "linear"] = "fcn"
    channels: PositiveInt = 256
    dilated: bool = True


class Segmenter(nn.Module):
    """An encoder with a classifier of every place of its last map, enlarged to the image.

    Args:
        encoder: is copied, not changed.
        classes: how many.
        shape: of the head.

    Attributes:
        stride: pixels of the image from one place of the map to the next.
    """

    def __init__(self, encoder: Encoder, classes: int, shape: SegmenterShape) -> None:
        super().__init__()
        self.body = copy.deepcopy(encoder).requires_grad_().eval()
        resnets = [part for part in self.body.modules() if isinstance(part, ResNetEncoder)]
        if shape.dilated:
            for resnet in resnets:
                dilate_last_stage(resnet)
        self.is_frozen = shape.head == "linear"
        if self.is_frozen:
            self.body.requires_grad_(False)
        device = next(self.body.parameters()).device
        with torch.no_grad():
            blank = self._last_map(torch.zeros(1, 3, PROBE_SIDE, PROBE_SIDE, device=device))
        self.stride = PROBE_SIDE // blank.shape[3]
        # places of a ResNet's map lie on pixels 0, stride, 2 · stride …, those of patches between
        self.is_on_pixels = bool(resnets)
        self.patch = self.body.patch if isinstance(self.body, ViTEncoder) else 1
        self.head = _head(blank.shape[1], classes, shape)

    def train(self, mode: bool = True) -> "Segmenter":
        """Set the mode; a frozen encoder stays in eval mode."""
        super().train(mode)
        if self.is_frozen:
            self.body.eval()
        return self

    def forward(
        self, images: Float[Tensor, "b 3 h w"], labels: UInt8[Tensor, "b h w"] | None = None
    ) -> Float[Tensor, "b classes h w"] | dict[str, Tensor]:
        """The loss of some labels, or without them the logits of every pixel.

        Args:
            images: in 0…1.
            labels: classes by number, 255 of what does not count.

        Returns:
            ``pixels``, the mean cross-entropy of the labelled pixels, or logits in float32. Where
            processes train together, the mean over these is that of the batch.
        """
        height, width = images.shape[2:]
        pixels = self._padded(normalize(images))
        if self.is_frozen:
            with torch.no_grad():
                features = self._last_map(pixels)
        else:
            features = self._last_map(pixels)
        logits = self.head(features).float()
        enlarged = F.interpolate(
            logits,
            size=pixels.shape[2:],
            mode="bilinear",
            align_corners=self.is_on_pixels,
        )
        of_pixels = enlarged[:, :, :height, :width]
        if labels is None:
            return of_pixels
        total = F.cross_entropy(of_pixels, labels.long(), ignore_index=IGNORED, reduction="sum")
        counted = ranks.gather_numbers((labels != IGNORED).sum()[None]).sum()
        # 0 where no pixel counts, as in crops of border; the mean over processes is the batch's
        return {"pixels": total * ranks.world() / counted.clamp_min(1)}

    def _last_map(self, pixels: Tensor) -> Tensor:
        """The encoder's last map of normalised images."""
        maps: dict[str, Tensor] = self.body.maps(
            pixels.contiguous(memory_format=torch.channels_last)
        )
        return [*maps.values()][-1]

    def _padded(self, pixels: Tensor) -> Tensor:
        """Normalised images with 0 to the right and below, where a map's last places want pixels.

        Those of a ResNet are on the last row and column, those of patches are whole.
        """
        height, width = pixels.shape[2:]
        if self.is_on_pixels:
            return F.pad(pixels, (0, (1 - width) % self.stride, 0, (1 - height) % self.stride))
        return F.pad(pixels, (0, -width % self.patch, 0, -height % self.patch))


def dilate_last_stage(encoder: ResNetEncoder) -> None:
    """Give a ResNet's last stage stride 1 and its 3×3 convolutions dilation 2, as MoCo does.

    Args:
        encoder: is changed; its weights are not.

    Source: He et al. 2020 (MoCo), Appendix.
    """
    for layer in encoder.layer4.modules():
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
            if layer.kernel_size == (3, 3):
                layer.dilation = (STAGE_DILATION, STAGE_DILATION)
                layer.padding = (STAGE_DILATION, STAGE_DILATION)


def _head(width: int, classes: int, shape: SegmenterShape) -> nn.Sequential:
    """What makes logits of a map of some width."""
    layers: list[nn.Module] = []
    if shape.head == "linear":
        layers.append(nn.BatchNorm2d(width, affine=False))
    else:
        for number in range(2):
            layers += _convolution(width if number == 0 else shape.channels, shape.channels)
        width = shape.channels
    classifier = nn.Conv2d(width, classes, 1)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers, classifier)


def _convolution(width: int, channels: int) -> list[nn.Module]:
    """A dilated convolution with its norm."""
    return [
        nn.Conv2d(width, channels, 3, padding=HEAD_DILATION, dilation=HEAD_DILATION, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    ]
