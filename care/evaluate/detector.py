"""Faster and Mask R-CNN by MoCo's protocol, of torchvision's parts and ours."""

import copy
from typing import Any, Literal
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import (
    faster_rcnn,
    image_list,
    mask_rcnn,
    rpn,
)
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from care.encoders import Encoder, ResNetEncoder
from care.errors import CareError
from care.evaluate.detector_parts import RPN, Anchors, Heads, Maps, RoIAlign
from care.train import ranks
from care.train.photometrics import normalize


class Detector(nn.Module):
    """Faster R-CNN, or with ``mask`` Mask R-CNN, on a copy of ``encoder``; labels are 1 … ``classes``, 0 is the background.

    "c4" needs a ResNet: its last stage and one more norm are the head of boxes that are pooled 14 × 14 from the map before it; the RPN
    hands on twice as many in training. "fpn" is a pyramid of the maps of stride 4 and more, with batch norms. See ``detect``.
    """

    def __init__(
        self,
        encoder: Encoder,
        classes: int,
        *,
        head: Literal["c4", "fpn"] = "c4",
        mask: bool = False,
        proposals: int = 1000,
        anchor_scale: float = 8,
        channels: int = 256,
        hidden: int = 1024,
    ) -> None:
        super().__init__()
        self.body, c4 = copy.deepcopy(encoder).requires_grad_(), head == "c4"
        if c4 and not isinstance(encoder, ResNetEncoder):
            raise CareError(
                f"{encoder.name or 'this encoder'} has no stages to cut into the C4 form; use head='fpn'"
            )
        maps = self.body.eval().maps(
            torch.zeros(1, 3, 256, 256, device=next(encoder.parameters()).device)
        )
        self.strides = strides = {
            name: 256 // x.shape[3]
            for name, x in maps.items()
            if x.shape[3] <= 64 and (name == "layer3" or not c4)
        }
        if isinstance(self.body, ResNetEncoder) and c4:
            last, width = self.body.layer4, encoder.features
            self.body.layer4, self.neck, self.multiple = (
                nn.Identity(),
                nn.Identity(),
                max(strides.values()),
            )
            sizes = [tuple(anchor_scale * 2**level for level in range(2, 7))]
            box_head: nn.Module = nn.Sequential(last, nn.BatchNorm2d(width))
            through, before, after = maps["layer3"].shape[1], (12, 6), (2, 1)
        else:
            # what the maps do not need has no gradient, which processes that train as one would wait for
            weights = [*self.body.parameters()]
            used = torch.autograd.grad(
                [maps[name].sum() for name in strides], weights, allow_unused=True
            )
            for weight, gradient in zip(weights, used, strict=True):
                weight.requires_grad_(gradient is not None)
            widths = [maps[name].shape[1] for name in strides]
            self.neck = FeaturePyramidNetwork(
                widths, channels, extra_blocks=LastLevelMaxPool(), norm_layer=nn.BatchNorm2d
            )
            self.multiple = 2 * max(strides.values())
            sizes = [(anchor_scale * stride,) for stride in (*strides.values(), self.multiple)]
            box_head, width = faster_rcnn.TwoMLPHead(channels * 49, hidden), hidden
            through, before, after = channels, (2, 1), (1, 1)
        boxes = faster_rcnn.FastRCNNPredictor(width, classes + 1)
        masks = (
            mask_rcnn.MaskRCNNPredictor(width if c4 else channels, channels, classes + 1)
            if mask
            else None
        )
        for layer, deviation in (
            (boxes.cls_score, 0.01),
            (boxes.bbox_pred, 0.001),
            (masks and masks.mask_fcn_logits, 0.001),
        ):
            if layer:
                nn.init.normal_(layer.weight, std=deviation)
                nn.init.zeros_(layer.bias)
        tops = (
            {"training": training * proposals, "testing": testing * proposals}
            for training, testing in (before, after)
        )
        anchors = Anchors(tuple(sizes), ((0.5, 1.0, 2.0),) * len(sizes))
        self.rpn = RPN(
            anchors, rpn.RPNHead(through, 3 * len(sizes[0])), 0.7, 0.3, 256, 0.5, *tops, 0.7
        )
        # bfloat16 could not tell the proposals' pixels apart
        self.rpn.head.register_forward_hook(
            lambda _, __, both: tuple([x.float() for x in of_levels] for of_levels in both)
        )
        self.heads = Heads(
            RoIAlign(strides, 14 if c4 else 7),
            box_head,
            nn.Sequential(nn.AdaptiveAvgPool2d(1), boxes) if c4 else boxes,
            0.5,
            0.5,
            min(512, max(proposals // 2, 1)),
            0.25,
            (10.0, 10.0, 5.0, 5.0),
            0.05,
            0.5,
            100,
            mask_roi_pool=RoIAlign(strides, 14) if mask and not c4 else None,
            mask_predictor=masks,
            mask_head=mask_rcnn.MaskRCNNHeads(channels, [channels] * 4, 1)
            if mask and not c4
            else None,
        )

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """Losses by name in training, else ``boxes`` [n, 4], ``scores``, ``labels``, ``masks`` [n, m, m] of images [3, h, w] in 0…1."""
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        sides: list[float] = [max(of_axis) for of_axis in zip(*sizes, strict=True)]
        if self.training:  # the borders are in the batch norms' statistics: equal ones, whatever the number of processes
            sides = ranks.max_over_ranks(*sides)
        height, width = (-(-int(side) // self.multiple) * self.multiple for side in sides)
        batch = torch.stack(
            [
                F.pad(normalize(x[None])[0], (0, width - x.shape[2], 0, height - x.shape[1]))
                for x in images
            ]
        )
        maps = self.body.maps(batch.contiguous(memory_format=torch.channels_last))
        levels: Maps = self.neck({name: maps[name] for name in self.strides})
        proposals, first = self.rpn(image_list.ImageList(batch, sizes), levels, targets)
        found, second = self.heads(levels, proposals, sizes, targets)
        return (
            {name.removeprefix("loss_"): loss for name, loss in (second | first).items()}
            if self.training
            else found
        )
