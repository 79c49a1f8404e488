"""Detection transfer: Faster R-CNN with a feature pyramid on a pre-trained encoder."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

import shards
from care.encoders import Encoder
from care.errors import CareError
from care.evaluate.coco import AveragePrecision, Detections, average_precision
from care.train.batches import loaded
from care.train.checkpoint import digest_of
from care.train.run import Precision, Run, fastest_precision, seeded
from care.train.views import MEAN, STD
from shards.boxes import BoxSet
from shards.progress import progress

LONGEST = 1333 / 800
"""Longest side over the short side that is asked for: longer images are made smaller, as detectron2 and torchvision do."""

Example = tuple[Tensor, dict[str, Tensor]]


def detect(
    encoder: Encoder, train: BoxSet, val: BoxSet, run: str | Path, *, size: int = 800, iterations: int = 24_000,
    batch_size: int = 16, lr: float = 0.02, warmup: int = 100, weight_decay: float = 1e-4, proposals: int = 1000,
    anchor_scale: float = 8, channels: int = 256, hidden: int = 1024, seed: int = 0, precision: Precision | None = None,
    device: str | None = None, workers: int = 0, checkpoint_every: int = 500,
) -> AveragePrecision:  # fmt: skip
    """Train Faster R-CNN with a feature pyramid from ``encoder`` on ``train``, and score its last iteration on ``val``.

    Protocol: the whole network is trained, nothing is frozen, batch norm also in the pyramid; images resized to one short side
    and flipped; SGD with momentum 0.9, no decay on norms and biases, the rate × 0.1 after 3/4 and 11/12 of the iterations.
    Nothing is chosen on ``val``. The defaults are those of MoCo's VOC protocol (Sec. 4.3) where they apply. Called again, it
    continues from the last checkpoint in ``run``.

    Args:
        encoder: is copied, not changed.
        train: images to learn from; ignored boxes are left out.
        val: images to score, with the same classes.
        run: directory of the checkpoints and of ``losses.jsonl``.
        size: short side of the images, pixels.
        iterations: training steps.
        batch_size: images a step.
        lr: learning rate for 16 images a step.
        warmup: iterations of linear warm-up.
        weight_decay: of the weights of convolutions and linear layers.
        proposals: boxes an image that the first stage hands to the second one.
        anchor_scale: side of the anchors over the stride of their level.
        channels: of the feature pyramid.
        hidden: width of the box head.
        seed: of the new layers' weights, the order, the flips, the sampling of proposals.
        precision: of the arithmetic; None for what the hardware computes natively.
        device: "cuda", "cpu" or None for what there is.
        workers: processes that decode images.
        checkpoint_every: iterations between checkpoints.

    Raises:
        CareError: other classes in ``val``, no box to learn from or to score, a loss that is not finite, a run with other settings.
        shards.ShardError: a damaged image.
        Stopped: on SIGINT or SIGTERM, after saving.
    """
    if train.classes != val.classes:
        raise CareError(f"{train.path} and {val.path} name different classes; read the second with the classes of the first")
    for data in (train, val):
        if data.counted == 0:
            raise CareError(f"{data.path} has no box that counts; detection needs some to learn from and to score")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    precision = precision or fastest_precision(where)
    settings = {
        "encoder": digest_of(encoder), "data": train.digest, "size": size, "steps": iterations, "batch_size": batch_size, "lr": lr,
        "warmup": warmup, "weight_decay": weight_decay, "proposals": proposals, "anchor_scale": anchor_scale, "channels": channels,
        "hidden": hidden, "seed": seed, "precision": precision,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = faster_rcnn(encoder, len(train.classes), size, proposals, anchor_scale, channels, hidden).to(where).train()
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0}], lr=lr, momentum=0.9, fused=True
    )
    state = Run(run, model, optimizer, settings, title="detection", precision=precision, checkpoint_every=checkpoint_every)
    with state:
        for step, (images, targets) in enumerate(state.waiting(_batches(train, settings, state.start, workers)), state.start):
            rate = min(1, (step + 1) / max(warmup, 1)) * 0.1 ** sum(step >= iterations * part for part in (3 / 4, 11 / 12))
            for group in optimizer.param_groups:
                group["lr"] = lr * batch_size / 16 * rate
            updated = False
            while not updated:
                with state.autocast, seeded(seed, step, where):
                    losses = model([x.to(where) for x in images], [{k: v.to(where) for k, v in t.items()} for t in targets])
                losses["loss_total"] = torch.stack(list(losses.values())).sum()
                terms = {name.removeprefix("loss_"): float(value.detach()) for name, value in losses.items()}
                state.backward(losses["loss_total"])
                updated = state.update(step, terms)
            state.commit(step, {**terms, "lr": group["lr"]}, "loss {total:.3f} class {classifier:.3f} box {box_reg:.3f}".format(**terms))
    with state.autocast:
        return average_precision(val, _detections(model.eval(), val, size, batch_size, workers))


class _Pyramid(nn.Module):
    """An encoder's maps of stride 4 and more, and one pooled once more, all with as many ``channels``; batch norm throughout."""

    def __init__(self, encoder: Encoder, channels: int) -> None:
        super().__init__()
        self.encoder, self.out_channels = copy.deepcopy(encoder), channels
        with torch.no_grad():
            maps = copy.deepcopy(encoder).eval().maps(torch.zeros(1, 3, 256, 256, device=next(encoder.parameters()).device))
        self.strides = {name: 256 // x.shape[3] for name, x in maps.items() if 256 // x.shape[3] > 3}
        widths = [maps[name].shape[1] for name in self.strides]
        self.fpn = FeaturePyramidNetwork(widths, channels, extra_blocks=LastLevelMaxPool(), norm_layer=nn.BatchNorm2d)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.encoder.maps(images.contiguous(memory_format=torch.channels_last))
        levels: dict[str, Tensor] = self.fpn({name: maps[name] for name in self.strides})
        return levels


def faster_rcnn(encoder: Encoder, classes: int, size: int, proposals: int, anchor_scale: float, channels: int, hidden: int) -> FasterRCNN:
    """The Faster R-CNN of torchvision on a copy of ``encoder``; its labels are classes + 1, 0 is the background."""
    pyramid = _Pyramid(encoder, channels)
    strides = [*pyramid.strides.values(), 2 * max(pyramid.strides.values())]
    return FasterRCNN(
        pyramid, min_size=size, max_size=round(size * LONGEST), image_mean=MEAN, image_std=STD,
        rpn_anchor_generator=AnchorGenerator(tuple((anchor_scale * stride,) for stride in strides), ((0.5, 1.0, 2.0),) * len(strides)),
        rpn_pre_nms_top_n_train=2 * proposals, rpn_pre_nms_top_n_test=proposals, rpn_post_nms_top_n_train=proposals,
        rpn_post_nms_top_n_test=proposals, box_batch_size_per_image=min(512, max(proposals // 2, 1)),
        box_roi_pool=MultiScaleRoIAlign(list(pyramid.strides), output_size=7, sampling_ratio=2),
        box_head=TwoMLPHead(channels * 49, hidden),
        box_predictor=FastRCNNPredictor(hidden, classes + 1),
    )  # fmt: skip


class _Examples(Dataset[Example]):
    """Pictures as tensors [3, h, w] in 0…1, resized, and their boxes; asked for by number, or by (number, mirrored)."""

    def __init__(self, data: BoxSet, size: int) -> None:
        self.pictures, self.size = data.pictures, size

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, at: int | tuple[int, bool]) -> Example:
        number, mirrored = at if isinstance(at, tuple) else (at, False)
        picture = self.pictures[number]
        scale = min(self.size / min(picture.size), round(self.size * LONGEST) / max(picture.size))
        width, height = (max(round(side * scale), 1) for side in picture.size)
        # resized here: torchvision's transform, which then has nothing to do, is not antialiased
        image = picture.image().resize((width, height), Image.Resampling.BILINEAR)
        left, top, right, bottom = (picture.boxes[~picture.ignored] * np.divide((width, height) * 2, picture.size * 2)).T
        if mirrored:
            image, left, right = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), width - right, width - left
        boxes = torch.from_numpy(np.stack((left, top, right, bottom), 1).astype(np.float32))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return pixels, {"boxes": boxes, "labels": torch.from_numpy(picture.labels[~picture.ignored]) + 1}


def _batches(data: BoxSet, settings: dict[str, Any], start: int, workers: int) -> Iterator[tuple[list[Tensor], list[dict[str, Tensor]]]]:
    batch, seed = settings["batch_size"], settings["seed"]

    def samples() -> Iterator[list[tuple[int, bool]]]:
        for step in range(start, settings["steps"]):
            epoch, ids = shards.step_ids(len(data.pictures), batch_size=batch, step=step, seed=seed)
            yield [(int(n), bool(np.random.default_rng((seed, epoch, n)).integers(2))) for n in ids]

    loader = DataLoader(
        _Examples(data, settings["size"]), batch_sampler=samples(), num_workers=workers, collate_fn=list, generator=torch.Generator()
    )
    for examples in loaded(loader):
        yield [x for x, _ in examples], [target for _, target in examples]


@torch.no_grad()
def _detections(model: FasterRCNN, data: BoxSet, size: int, batch_size: int, workers: int) -> list[Detections]:
    where, found = next(model.parameters()).device, list[Detections]()
    loader = DataLoader(_Examples(data, size), batch_size=batch_size, num_workers=workers, collate_fn=list, generator=torch.Generator())
    with progress(f"detecting in {data.path}", len(data.pictures)) as advance:
        for examples in loaded(loader):
            images = [x.to(where) for x, _ in examples]
            for image, output in zip(images, model(images), strict=True):
                boxes, scores, labels = (output[name].float().cpu().numpy() for name in ("boxes", "scores", "labels"))
                scale = np.divide(data.pictures[len(found)].size, (image.shape[2], image.shape[1]), dtype=np.float32)
                found.append(Detections(boxes * np.tile(scale, 2), scores, labels.astype(np.int64) - 1))
            advance(len(examples), "")
    return found
