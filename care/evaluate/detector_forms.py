"""The two head forms of a detector, C4 and FPN: one builder for each, which gives the same parts.

The numbers are those of detectron2's baselines, which MoCo's protocol uses; beside each stands
its option there, below ``MODEL``.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, TypeGuard
import torch
from torch import nn
from torchvision.models.detection import faster_rcnn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from care.encoders import Encoder, ResNetEncoder
from care.errors import CareError
from care.evaluate.detector_parts import FeatureMaps
from shards.bounds import PositiveInt, Range

PROBE_SIDE = 256  # px, of the image on which the strides of an encoder's maps are measured
FINEST_STRIDE = 4  # of a pyramid (FPN, Sec. 4)
C4_TAP = "layer3"  # whose map C4 pools boxes from
C4_POOLED = 14  # ROI_BOX_HEAD.POOLER_RESOLUTION of C4
FPN_POOLED = 7  # the same of FPN


@dataclass(frozen=True)
class DetectorShape:
    """What a detector is like beside its encoder and classes.

    Attributes:
        head: c4 pools boxes before a ResNet's last stage, which becomes their head; fpn has a
            pyramid, for any encoder.
        mask: find masks, too; boxes of train without one are left out.
        proposals: boxes an image that the first stage hands to the second one at test.
        anchor_scale: side of the anchors over the stride of their level; c4 has levels of 4 to 64
            in one.
        channels: of the feature pyramid and of the mask head.
        hidden: width of the pyramid's box head.
    """

    head: Literal["c4", "fpn"] = "c4"
    mask: bool = False
    proposals: PositiveInt = 1000
    anchor_scale: Annotated[float, Range(0.5)] = 8
    channels: Annotated[int, Range(8)] = 256
    hidden: Annotated[int, Range(8)] = 1024


class Kept(NamedTuple):
    """How many proposals are kept."""

    training: int
    testing: int


class Form(NamedTuple):
    """What the two head forms differ in.

    Attributes:
        neck: from the encoder's maps to those of the levels.
        strides: pixels of the image per pixel of the levels that boxes are pooled from.
        multiple: pixels; sides of a batch are padded to multiples of it.
        anchor_sides: pixels, of every level of the first stage.
        channels: of these levels.
        before_nms: proposals of a level before non-maximum suppression.
        after_nms: proposals of an image after it.
        pooled: side of the pooled boxes' maps.
        box_head: from pooled boxes to their features.
        averages: whether the box head gives maps, whose means are classified.
        box_features: width of the box head.
        mask_features: width of what masks are predicted from.
        has_mask_head: whether masks have a head beside that of the boxes.
    """

    neck: nn.Module
    strides: dict[str, int]
    multiple: int
    anchor_sides: tuple[tuple[float, ...], ...]
    channels: int
    before_nms: Kept
    after_nms: Kept
    pooled: int
    box_head: nn.Module
    averages: bool
    box_features: int
    mask_features: int
    has_mask_head: bool


def takes_c4(encoder: Encoder) -> TypeGuard[ResNetEncoder]:
    """Whether an encoder has stages to cut into the C4 form.

    Args:
        encoder: that is to be detected with.
    """
    return isinstance(encoder, ResNetEncoder)


def build_c4(body: Encoder, shape: DetectorShape) -> Form:
    """The C4 form: boxes are pooled before a ResNet's last stage, which is their head.

    Its extra norm after that stage is MoCo's, where detectron2 has none.

    Args:
        body: a copy of the encoder in eval mode; it loses its last stage.
        shape: of the detector.

    Raises:
        CareError: the encoder has no stages to cut.
    """
    if not takes_c4(body):
        raise CareError(
            f"{body.name or 'this encoder'} has no stages to cut into the C4 form; use head='fpn'"
        )
    tapped = _probe(body)[C4_TAP]
    last_stage = body.layer4
    body.layer4 = nn.Identity()
    stride = PROBE_SIDE // tapped.shape[3]
    return Form(
        neck=nn.Identity(),
        strides={C4_TAP: stride},
        multiple=stride,
        # ANCHOR_GENERATOR.SIZES: 32, 64, 128, 256, 512
        anchor_sides=(tuple(shape.anchor_scale * 2**level for level in range(2, 7)),),
        channels=tapped.shape[1],
        # RPN.PRE_NMS_TOPK_TRAIN, _TEST: 12,000 and 6,000; RPN.POST_NMS_TOPK_TRAIN, _TEST
        before_nms=Kept(training=12 * shape.proposals, testing=6 * shape.proposals),
        after_nms=Kept(training=2 * shape.proposals, testing=shape.proposals),
        pooled=C4_POOLED,
        box_head=nn.Sequential(last_stage, nn.BatchNorm2d(body.features)),
        averages=True,
        box_features=body.features,
        mask_features=body.features,
        has_mask_head=False,
    )


def build_fpn(body: Encoder, shape: DetectorShape) -> Form:
    """The FPN form: a pyramid with batch norms on the maps of stride 4 and more.

    Args:
        body: a copy of the encoder in eval mode; what its maps do not need gets no gradient.
        shape: of the detector.
    """
    largest = PROBE_SIDE // FINEST_STRIDE
    used = {name: x for name, x in _probe(body).items() if x.shape[3] <= largest}
    _freeze_unused(body, used)
    strides = {name: PROBE_SIDE // x.shape[3] for name, x in used.items()}
    coarsest = 2 * max(strides.values())
    levels = (*strides.values(), coarsest)
    neck = FeaturePyramidNetwork(
        in_channels_list=[x.shape[1] for x in used.values()],
        out_channels=shape.channels,
        extra_blocks=LastLevelMaxPool(),
        norm_layer=nn.BatchNorm2d,
    )
    return Form(
        neck=neck,
        strides=strides,
        multiple=coarsest,
        # ANCHOR_GENERATOR.SIZES of FPN: 32 at stride 4 … 512 at stride 64
        anchor_sides=tuple((shape.anchor_scale * stride,) for stride in levels),
        channels=shape.channels,
        # RPN.PRE_NMS_TOPK_TRAIN, _TEST of FPN: 2,000 and 1,000 a level; RPN.POST_NMS_TOPK_*: 1,000
        before_nms=Kept(training=2 * shape.proposals, testing=shape.proposals),
        after_nms=Kept(training=shape.proposals, testing=shape.proposals),
        pooled=FPN_POOLED,
        box_head=faster_rcnn.TwoMLPHead(
            in_channels=shape.channels * FPN_POOLED**2, representation_size=shape.hidden
        ),
        averages=False,
        box_features=shape.hidden,
        mask_features=shape.channels,
        has_mask_head=True,
    )


def _probe(body: Encoder) -> FeatureMaps:
    """An encoder's maps of an image of ``PROBE_SIDE`` pixels, with their graph."""
    device = next(body.parameters()).device
    maps: FeatureMaps = body.maps(torch.zeros(1, 3, PROBE_SIDE, PROBE_SIDE, device=device))
    return maps


def _freeze_unused(body: Encoder, maps: FeatureMaps) -> None:
    """Ask for no gradient of the weights that some maps do not depend on.

    Processes that train as one would wait for it.
    """
    weights = [*body.parameters()]
    sums = [x.sum() for x in maps.values()]
    gradients = torch.autograd.grad(sums, weights, allow_unused=True)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.requires_grad_(gradient is not None)
