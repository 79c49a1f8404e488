"""Parts of a detector that replace torchvision's where detectron2 computes otherwise."""

from collections.abc import Sequence
from typing import Any
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import (
    anchor_utils,
    roi_heads,
    rpn,
)
from torchvision.ops import roi_align

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
