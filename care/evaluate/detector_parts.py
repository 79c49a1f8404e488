"""Parts of a detector that take torchvision's place where detectron2 computes otherwise.

MoCo's protocol is detectron2's. What torchvision does in the same way is used as it is, in
``care.evaluate.detector``; what it does differently is here, each class with the difference.
"""

from collections.abc import Sequence
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import anchor_utils, roi_heads, rpn
from torchvision.ops import roi_align

FeatureMaps = dict[str, Tensor]

CANONICAL_SIDE = 224  # px, of a box that is pooled from the level of stride 16 (FPN, Eq. 1)
CANONICAL_STRIDE = 16


class Anchors(anchor_utils.AnchorGenerator):
    """torchvision's anchors without its rounding, in float32 also where the maps are not."""

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        """Make the anchors [ratios · scales, 4] of each level around 0.

        A ratio is height over width, a scale the root of the area in pixels.
        """
        roots = torch.tensor(self.aspect_ratios[0])[:, None].sqrt()
        self.cell_anchors = []
        for scales in self.sizes:
            widths = torch.tensor(scales) / roots
            heights = torch.tensor(scales) * roots
            corners = torch.stack((-widths, -heights, widths, heights), 2)
            self.cell_anchors.append(corners.view(-1, 4).to(device) / 2)


class RPN(rpn.RegionProposalNetwork):
    """torchvision's first stage with L1 for smooth L1.

    Both losses are divided by the anchors that are to be sampled, whether as many are there or not.
    """

    def compute_loss(
        self,
        objectness: Tensor,
        deltas: Tensor,
        labels: list[Tensor],
        goals: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the sampled anchors, L1 of the positive ones among them.

        Args:
            objectness: logits of the anchors of all images.
            deltas: predicted boxes, relative to the anchors [anchors, 4].
            labels: of every image, 1 for an object, 0 for background, -1 for neither.
            goals: of every image, its anchors' boxes, relative to them [anchors, 4].
        """
        positive_of_images, negative_of_images = self.fg_bg_sampler(labels)
        positive = torch.cat(positive_of_images).bool()
        sampled = positive | torch.cat(negative_of_images).bool()
        wanted = self.fg_bg_sampler.batch_size_per_image * len(labels)
        cross_entropy = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        distance = F.l1_loss(deltas[positive], torch.cat([*goals])[positive], reduction="sum")
        return cross_entropy / wanted, distance / wanted


class RoIAlign(nn.Module):
    """Boxes pooled to [n, c, side, side], aligned to half pixels.

    A cell has as many samples as it has pixels. Of several levels a box is pooled from the one of
    its size: 224 px at stride 16, twice the side at twice the stride.

    Args:
        strides: pixels of the image per pixel of the maps by name, ascending.
        side: cells of the pooled map, across and down.
    """

    def __init__(self, strides: dict[str, int], side: int) -> None:
        super().__init__()
        self.strides = strides
        self.side = side

    def forward(self, maps: FeatureMaps, boxes: list[Tensor]) -> Tensor:
        """Pool boxes of all images.

        Args:
            maps: [b, c, h, w]; those named in ``strides`` are used.
            boxes: of every image [n, 4], in pixels.

        Returns:
            Features [all n, c, side, side], in the order of the boxes.
        """
        rois = torch.cat([F.pad(of_image, (1, 0), value=n) for n, of_image in enumerate(boxes)])
        levels = self._levels(rois)
        pooled: list[Tensor] = []
        rows = []
        for level, (name, stride) in enumerate(self.strides.items()):
            rows.append(torch.where(levels == level)[0])
            pooled.append(
                roi_align(
                    maps[name],
                    rois[rows[-1]],
                    output_size=self.side,
                    spatial_scale=1 / stride,
                    sampling_ratio=0,
                    aligned=True,
                )
            )
        if len(pooled) == 1:
            return pooled[0]
        return torch.cat(pooled)[torch.cat(rows).argsort()]

    def _levels(self, rois: Tensor) -> Tensor:
        """Number of the level of each box [n]."""
        sides = (rois[:, 3:] - rois[:, 1:3]).prod(1).sqrt()
        bounds = rois.new_tensor([*self.strides.values()][1:])
        return torch.bucketize(sides * (CANONICAL_STRIDE / CANONICAL_SIDE), bounds, right=True)


class Heads(roi_heads.RoIHeads):
    """torchvision's second stage with L1 for smooth L1.

    Without a ``mask_head``, masks share the features of the box head.
    """

    def forward(
        self,
        maps: FeatureMaps,
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """What is found in every image, or in training the losses.

        Args:
            maps: of all images, by level.
            proposals: boxes of the first stage, of every image [n, 4].
            sizes: height and width of every image.
            targets: what to learn of every image.

        Returns:
            ``boxes``, ``scores``, ``labels`` and perhaps ``masks`` [n, m, m], probabilities inside
            the boxes, of every image; and the losses by name. In training the first, else the
            second are empty.
        """
        if self.training and targets is not None:
            return [], self._losses(maps, proposals, targets)
        features = self.box_head(self.box_roi_pool(maps, proposals))
        logits, deltas = self._predict(features)
        boxes, scores, labels = self.postprocess_detections(logits, deltas, proposals, sizes)
        objects = [
            {"boxes": boxes[n], "scores": scores[n], "labels": labels[n]} for n in range(len(sizes))
        ]
        if self.mask_predictor:
            masks = roi_heads.maskrcnn_inference(self._mask_logits(maps, boxes), labels)
            for n, of_image in enumerate(masks):
                objects[n]["masks"] = of_image[:, 0]
        return objects, {}

    def _losses(
        self,
        maps: FeatureMaps,
        proposals: list[Tensor],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Cross-entropy of the sampled boxes, L1 of those of objects, and their masks' loss."""
        proposals, matched, labels, goals = self.select_training_samples(proposals, targets)
        features = self.box_head(self.box_roi_pool(maps, proposals))
        logits, deltas = self._predict(features)
        classes = torch.cat(labels)
        positive = classes > 0
        # a box is predicted for every class, and that of its own is compared
        deltas_of_class = torch.unflatten(deltas, 1, (-1, 4))[positive, classes[positive]]
        distance = F.l1_loss(deltas_of_class, torch.cat(goals)[positive], reduction="sum")
        losses = {
            "classifier": F.cross_entropy(logits, classes),
            "box_reg": distance / max(len(classes), 1),
        }
        if self.mask_predictor:
            boxes = _of_objects(proposals, labels)
            losses["mask"] = roi_heads.maskrcnn_loss(
                self._mask_logits(maps, boxes, features[positive]),
                # torchvision does not align the crops of masks: half a pixel less is what does
                [of_image - 0.5 for of_image in boxes],
                [of_image["masks"] for of_image in targets],
                [of_image["labels"] for of_image in targets],
                _of_objects(matched, labels),
            )
        return losses

    def _predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [n, classes] and deltas [n, 4 · classes], in float32."""
        logits, deltas = self.box_predictor(features)
        return logits.float(), deltas.float()

    def _mask_logits(
        self,
        maps: FeatureMaps,
        boxes: list[Tensor],
        box_features: Tensor | None = None,
    ) -> Tensor:
        """Logits [n, classes, m, m] of the masks inside boxes.

        Args:
            maps: of all images, by level.
            boxes: of every image [n, 4].
            box_features: what the box head made of these boxes, if it has seen them.
        """
        if self.mask_head:
            features = self.mask_head(self.mask_roi_pool(maps, boxes))
        elif box_features is not None:
            features = box_features
        else:
            features = self.box_head(self.box_roi_pool(maps, boxes))
        logits: Tensor = self.mask_predictor(features)
        return logits.float()


def _of_objects(of_images: list[Tensor], labels: list[Tensor]) -> list[Tensor]:
    """Of every image the rows whose label is no background."""
    return [rows[label > 0] for rows, label in zip(of_images, labels, strict=True)]
