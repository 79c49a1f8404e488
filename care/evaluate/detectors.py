"""Faster and Mask R-CNN by MoCo's protocol, of torchvision's parts; the classes here replace what detectron2 computes otherwise."""

import copy
from collections.abc import Sequence
from typing import Any, Literal
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import (
    anchor_utils,
    faster_rcnn,
    image_list,
    mask_rcnn,
    roi_heads,
    rpn,
)
from torchvision.ops import FeaturePyramidNetwork, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from care.encoders import Encoder, ResNetEncoder
from care.errors import CareError
from care.train import ranks
from care.train.photometrics import normalize

Maps = dict[str, Tensor]


class Anchors(anchor_utils.AnchorGenerator):
    """torchvision's anchors without its rounding, in float32 also where the maps are not."""

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        """[ratios · scales, 4] of each level around 0; a ratio is height over width, a scale the root of the area in pixels."""
        roots = torch.tensor(self.aspect_ratios[0])[:, None].sqrt()
        sides = [
            (torch.tensor(scales) / roots, torch.tensor(scales) * roots) for scales in self.sizes
        ]
        self.cell_anchors = [
            torch.stack((-w, -h, w, h), 2).view(-1, 4).to(device) / 2 for w, h in sides
        ]


class RPN(rpn.RegionProposalNetwork):
    """torchvision's first stage with L1 for smooth L1, and both losses over the anchors that are wanted, found or not."""

    def compute_loss(
        self, objectness: Tensor, deltas: Tensor, labels: list[Tensor], goals: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the sampled anchors, L1 of the positive ones."""
        positive, negative = (torch.cat(of_image).bool() for of_image in self.fg_bg_sampler(labels))
        chosen, wanted = positive | negative, self.fg_bg_sampler.batch_size_per_image * len(labels)
        entropy = F.binary_cross_entropy_with_logits(
            objectness.flatten()[chosen], torch.cat(labels)[chosen], reduction="sum"
        )
        return entropy / wanted, F.l1_loss(
            deltas[positive], torch.cat([*goals])[positive], reduction="sum"
        ) / wanted


class RoIAlign(nn.Module):
    """[n, c, side, side] for n boxes, aligned to half pixels, with as many samples as a cell has pixels; boxes of 224 px at stride 16."""

    def __init__(self, strides: dict[str, int], side: int) -> None:
        super().__init__()
        self.strides, self.side = strides, side

    def forward(self, maps: Maps, boxes: list[Tensor]) -> Tensor:
        """Of maps [b, c, h, w] those named in ``strides``, ascending, and every image's boxes [n, 4] in pixels."""
        rois = torch.cat(
            [F.pad(of_image, (1, 0), value=number) for number, of_image in enumerate(boxes)]
        )
        bounds = rois.new_tensor([*self.strides.values()][1:])
        levels = torch.bucketize(
            ((rois[:, 3:] - rois[:, 1:3]).prod(1)).sqrt() * (16 / 224), bounds, right=True
        )
        rows = [torch.where(levels == level)[0] for level in range(len(self.strides))]
        pooled = [
            roi_align(
                maps[name], rois[of_level], self.side, 1 / stride, sampling_ratio=0, aligned=True
            )
            for (name, stride), of_level in zip(self.strides.items(), rows, strict=True)
        ]
        return torch.cat(pooled)[torch.cat(rows).argsort()] if len(pooled) > 1 else pooled[0]


class Heads(roi_heads.RoIHeads):
    """torchvision's second stage with L1 for smooth L1; without a ``mask_head``, masks share the features of the box head."""

    def forward(
        self,
        maps: Maps,
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """What is found in every image, ``masks`` [n, m, m] being probabilities inside the boxes, or in training the losses."""
        if self.training:
            proposals, matched, labels, goals = self.select_training_samples(proposals, targets)
        features = self.box_head(self.box_roi_pool(maps, proposals))
        logits, deltas = (x.float() for x in self.box_predictor(features))
        if not self.training:
            columns = [*self.postprocess_detections(logits, deltas, proposals, sizes)]
            if self.mask_predictor:
                columns.append(
                    [
                        x[:, 0]
                        for x in roi_heads.maskrcnn_inference(
                            self._masks(maps, columns[0]), columns[2]
                        )
                    ]
                )
            return [
                dict(zip(("boxes", "scores", "labels", "masks"), row, strict=False))
                for row in zip(*columns, strict=True)
            ], {}
        classes, wanted = torch.cat(labels), torch.cat(goals)
        positive = classes > 0
        off = F.l1_loss(
            deltas.unflatten(1, (-1, 4))[positive, classes[positive]],
            wanted[positive],
            reduction="sum",
        )
        losses = {
            "classifier": F.cross_entropy(logits, classes),
            "box_reg": off / max(len(classes), 1),
        }
        if self.mask_predictor and targets is not None:
            boxes, matched = (
                [x[of > 0] for x, of in zip(xs, labels, strict=True)] for xs in (proposals, matched)
            )
            shapes, kinds = (
                [of_image[name] for of_image in targets] for name in ("masks", "labels")
            )
            logits = self._masks(maps, boxes, features[positive])
            # torchvision does not align the crops of the masks; half a pixel less is what aligning does
            losses["mask"] = roi_heads.maskrcnn_loss(
                logits, [x - 0.5 for x in boxes], shapes, kinds, matched
            )
        return [], losses

    def _masks(self, maps: Maps, boxes: list[Tensor], shared: Tensor | None = None) -> Any:
        if self.mask_head:
            shared = self.mask_head(self.mask_roi_pool(maps, boxes))
        elif shared is None:
            shared = self.box_head(self.box_roi_pool(maps, boxes))
        return self.mask_predictor(shared).float()


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
