"""Faster and Mask R-CNN on a copy of an encoder, by MoCo's protocol.

Of torchvision's parts and those of ``care.evaluate.detector_parts``; what the C4 and the FPN form
differ in comes from ``care.evaluate.detector_forms``. The numbers are those of detectron2's
baselines; beside each stands its option there, below ``MODEL``.
"""

import copy
from typing import Any
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import faster_rcnn, image_list, mask_rcnn, rpn
from care.encoders import Encoder
from care.evaluate.detector_forms import DetectorShape, Form, build_c4, build_fpn
from care.evaluate.detector_parts import RPN, Anchors, FeatureMaps, Heads, RoIAlign
from care.train import ranks
from care.train.photometrics import normalize

MASK_POOLED = 14  # ROI_MASK_HEAD.POOLER_RESOLUTION
MASK_CONVOLUTIONS = 4  # ROI_MASK_HEAD.NUM_CONV of FPN


class Detector(nn.Module):
    """Faster R-CNN, or with masks Mask R-CNN.

    Labels are 1 … ``classes``, 0 is the background.

    Args:
        encoder: is copied, not changed; for the C4 form a ResNet.
        classes: how many, without the background.
        shape: what else the detector is like.

    Raises:
        CareError: the C4 form is asked of an encoder that is no ResNet.
    """

    def __init__(self, encoder: Encoder, classes: int, shape: DetectorShape) -> None:
        super().__init__()
        self.body = copy.deepcopy(encoder).requires_grad_().eval()
        build_form = build_c4 if shape.head == "c4" else build_fpn
        form = build_form(self.body, shape)
        self.neck = form.neck
        self.strides = form.strides
        self.multiple = form.multiple
        box_predictor = faster_rcnn.FastRCNNPredictor(form.box_features, classes + 1)
        mask_predictor = None
        if shape.mask:
            mask_predictor = mask_rcnn.MaskRCNNPredictor(
                in_channels=form.mask_features,
                dim_reduced=shape.channels,  # ROI_MASK_HEAD.CONV_DIM
                num_classes=classes + 1,
            )
        # the deviations of detectron2's FastRCNNOutputLayers and MaskRCNNConvUpsampleHead
        _initialise(box_predictor.cls_score, deviation=0.01)
        _initialise(box_predictor.bbox_pred, deviation=0.001)
        if mask_predictor is not None:
            _initialise(mask_predictor.mask_fcn_logits, deviation=0.001)
        self.rpn = _first_stage(form)
        self.heads = _second_stage(form, shape, box_predictor, mask_predictor)

    def forward(
        self,
        images: list[Tensor],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> Any:
        """Losses by name in training, else what is found in every image.

        Args:
            images: [3, h, w] in 0…1, each of a size of its own.
            targets: in training, of every image ``boxes`` [n, 4], ``labels`` [n] and perhaps
                ``masks`` [n, h, w].

        Returns:
            Scalars by name, or for every image ``boxes`` [n, 4] in pixels, ``scores``, ``labels``
            and with masks ``masks`` [n, m, m], probabilities inside the boxes.
        """
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        batch = self._padded(images, sizes)
        maps = self.body.maps(batch.contiguous(memory_format=torch.channels_last))
        levels: FeatureMaps = self.neck({name: maps[name] for name in self.strides})
        batch_of_images = image_list.ImageList(batch, sizes)
        proposals, first_losses = self.rpn(batch_of_images, levels, targets)
        objects, second_losses = self.heads(levels, proposals, sizes, targets)
        if not self.training:
            return objects
        losses = second_losses | first_losses
        return {name.removeprefix("loss_"): loss for name, loss in losses.items()}

    def _padded(self, images: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        """Images normalised, with borders of 0 to the right and below, in one batch."""
        sides: list[float] = [max(of_axis) for of_axis in zip(*sizes, strict=True)]
        if self.training:
            # the borders are in the batch norms' statistics: equal ones, however many processes
            sides = ranks.max_over_ranks(*sides)
        height, width = (-(-int(side) // self.multiple) * self.multiple for side in sides)
        padded = []
        for image in images:
            border = (0, width - image.shape[2], 0, height - image.shape[1])
            padded.append(F.pad(normalize(image[None])[0], border))
        return torch.stack(padded)


def _initialise(layer: nn.Linear | nn.Conv2d, deviation: float) -> None:
    nn.init.normal_(layer.weight, std=deviation)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _first_stage(form: Form) -> RPN:
    """The stage that proposes boxes, whatever their class."""
    levels = len(form.anchor_sides)
    anchors = Anchors(
        sizes=form.anchor_sides,
        aspect_ratios=((0.5, 1.0, 2.0),) * levels,  # ANCHOR_GENERATOR.ASPECT_RATIOS
    )
    anchors_at_a_place = 3 * len(form.anchor_sides[0])
    first_stage = RPN(
        anchor_generator=anchors,
        head=rpn.RPNHead(form.channels, anchors_at_a_place),
        fg_iou_thresh=0.7,  # RPN.IOU_THRESHOLDS
        bg_iou_thresh=0.3,
        batch_size_per_image=256,  # RPN.BATCH_SIZE_PER_IMAGE
        positive_fraction=0.5,  # RPN.POSITIVE_FRACTION
        pre_nms_top_n=form.before_nms._asdict(),
        post_nms_top_n=form.after_nms._asdict(),
        nms_thresh=0.7,  # RPN.NMS_THRESH
    )
    first_stage.head.register_forward_hook(_in_float32)
    return first_stage


def _in_float32(
    _: nn.Module,
    __: Any,
    outputs: tuple[list[Tensor], list[Tensor]],
) -> tuple[list[Tensor], list[Tensor]]:
    """The head's outputs, as bfloat16 could not tell the proposals' pixels apart."""
    logits, deltas = outputs
    return [x.float() for x in logits], [x.float() for x in deltas]


def _second_stage(
    form: Form,
    shape: DetectorShape,
    box_predictor: nn.Module,
    mask_predictor: nn.Module | None,
) -> Heads:
    """The stage that classifies boxes, corrects them and finds masks in them."""
    mask_roi_pool = None
    mask_head = None
    if mask_predictor is not None and form.has_mask_head:
        mask_roi_pool = RoIAlign(form.strides, MASK_POOLED)
        mask_head = mask_rcnn.MaskRCNNHeads(
            in_channels=shape.channels,
            layers=[shape.channels] * MASK_CONVOLUTIONS,
            dilation=1,
        )
    if form.averages:
        box_predictor = nn.Sequential(nn.AdaptiveAvgPool2d(1), box_predictor)
    return Heads(
        box_roi_pool=RoIAlign(form.strides, form.pooled),
        box_head=form.box_head,
        box_predictor=box_predictor,
        fg_iou_thresh=0.5,  # ROI_HEADS.IOU_THRESHOLDS
        bg_iou_thresh=0.5,
        # ROI_HEADS.BATCH_SIZE_PER_IMAGE; fewer where fewer are proposed
        batch_size_per_image=min(512, max(shape.proposals // 2, 1)),
        positive_fraction=0.25,  # ROI_HEADS.POSITIVE_FRACTION
        bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),  # ROI_BOX_HEAD.BBOX_REG_WEIGHTS
        score_thresh=0.05,  # ROI_HEADS.SCORE_THRESH_TEST
        nms_thresh=0.5,  # ROI_HEADS.NMS_THRESH_TEST
        detections_per_img=100,  # TEST.DETECTIONS_PER_IMAGE
        mask_roi_pool=mask_roi_pool,
        mask_head=mask_head,
        mask_predictor=mask_predictor,
    )
