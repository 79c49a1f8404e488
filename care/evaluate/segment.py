"""Semantic segmentation: a head is trained on an encoder, then every pixel of val is classified."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
import torch
from torch import Tensor
from torch.nn import functional as F
from care.encoders import Encoder
from care.errors import CareError
from care.evaluate.dense_training import (
    check_slices,
    decay_all_but_norms,
    lead_progress,
    warn_of_differences,
)
from care.evaluate.evaluation import Evaluation
from care.evaluate.label_crops import (
    LARGEST_SCALE,
    LEAST_SCALE,
    LabelCrops,
    WholeImages,
    training_crops,
)
from care.evaluate.miou import (
    PICTURES,
    Counts,
    SeenImage,
    SegmentationScores,
    add_up,
    count_pixels,
    make_small,
)
from care.evaluate.predictions import as_percent
from care.evaluate.segmenter import Segmenter, SegmenterShape
from care.train import ranks
from care.train.batches import load_examples
from care.train.devices import torch_device
from care.train.loading import worker_count
from care.train.machine import Machine
from care.train.norm import synchronise
from care.train.precision import Precision, continued_precision
from care.train.rates import set_rate
from care.train.run import Run
from care.train.weights import digest_of
from shards.bounds import BatchSize, NonNegativeFloat, NonNegativeInt, PixelSide, PositiveInt
from shards.label_files import Labels
from shards.segmentation import SegmentationSet

IMAGES = 16  # a step, which the learning rates are for
FALLS = (0.7, 0.9)  # shares of the iterations after which the rate falls to a tenth
LINEAR_LR = 0.1  # ours: of a classifier of normalised features
PIXEL_BYTES = 4  # of a crop's colours and class


class Protocol(NamedTuple):
    """What the kind of the training set decides, as MoCo has it.

    Attributes:
        iterations: training steps.
        crop: side of the crops, pixels.
        lr: learning rate of the fcn for 16 images a step.
    """

    iterations: int
    crop: int
    lr: float


VOC = Protocol(iterations=30_000, crop=513, lr=0.003)
CITYSCAPES = Protocol(iterations=90_000, crop=769, lr=0.01)


def segment(  # noqa: PLR0913 (a public verb)
    encoder: Encoder,
    train: SegmentationSet,
    val: SegmentationSet,
    run: str | Path,
    *,
    shape: SegmenterShape = SegmenterShape(),
    crop: PixelSide | None = None,
    side: PixelSide | None = None,
    iterations: PositiveInt | None = None,
    batch_size: BatchSize = 16,
    lr: NonNegativeFloat | None = None,
    weight_decay: NonNegativeFloat = 1e-4,
    seed: NonNegativeInt = 0,
    precision: Precision | None = None,
    machine: Machine = Machine(),
) -> Evaluation:
    """The class of every pixel, by a network fine-tuned on an encoder or by a linear layer.

    Protocol, MoCo's, as docs/evaluation.md has it: nothing is chosen on val. A training image is
    scaled by 0.5…2, cropped, flipped or not. SGD with momentum 0.9, no decay on norms, the rate ×
    0.1 after 70 and 90 % of the iterations. Batch norms have the statistics of all processes. Every
    image of val is classified whole, at one scale; the mean over classes of intersection over union
    is of the pixels of all images at their own size, but for those without a class. With head
    linear the encoder stays as it is. Interrupted, the same call continues.

    Processes that train together take a slice of each batch and of val.

    Args:
        encoder: is copied, not changed.
        train: images to learn from.
        val: images to score.
        run: directory or URL of checkpoints and ``losses.jsonl``.
        shape: what the head is like.
        crop: side of the training crops, pixels; by default 513, on Cityscapes 769.
        side: short side that images are brought to first, in training and at test, pixels; by
            default they stay as they are.
        iterations: training steps; by default 30,000, on Cityscapes 90,000.
        batch_size: images a step, on all processes together.
        lr: learning rate for 16 images a step; by default 0.003, on Cityscapes 0.01, of linear 0.1.
        weight_decay: of all but norms.
        seed: of the new layers' weights, the order, the scales, the crops and the flips.
        precision: of the arithmetic; by default what the device computes natively.
        machine: what decides no result.

    Returns:
        ``miou`` and ``pixels``, the share of the pixels that is right, per cent; IoU by class; and
        the confusion of all pixels.

    Raises:
        CareError: the sets name different classes, train has one alone, or no pixel of val counts;
            a batch cannot be shared among the processes; the run is of other settings; or a loss is
            not finite.
        Stopped: SIGINT or SIGTERM came; all is saved, the same call continues.

    Source: He et al. 2020 (MoCo), Appendix.
    """
    _check_classes(train, val)
    warn_of_differences(train.images.pixels, val.images.pixels)
    check_slices(batch_size)
    device = torch_device(machine.device)
    precision = continued_precision(run, precision, device)
    protocol = CITYSCAPES if train.cityscapes else VOC
    steps = iterations or protocol.iterations
    crop = crop or protocol.crop
    if lr is None:
        lr = LINEAR_LR if shape.head == "linear" else protocol.lr
    settings = {
        "encoder": digest_of(encoder),
        "data": train.digest,
        **asdict(shape),
        "crop": crop,
        "side": side,
        "steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "weight_decay": weight_decay,
        "seed": seed,
        "precision": precision,
    }
    model = _build(encoder, len(train.classes), shape, seed).to(device)
    model.to(memory_format=torch.channels_last).train()
    synchronise(model)
    groups = decay_all_but_norms(model.head if model.is_frozen else model, weight_decay)
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9, fused=True)
    rate = lr * batch_size / IMAGES
    batches = partial(
        training_crops,
        LabelCrops(train, crop, side),
        batch_size=batch_size,
        seed=seed,
        device=device,
    )
    with Run(
        run,
        model,
        optimizer,
        settings,
        title="segmentation",
        precision=precision,
        machine=machine,
        example_bytes=PIXEL_BYTES * crop**2,
    ) as state:
        losses = ranks.parallel(model)
        stream = batches(steps=range(state.start, steps), workers=state.workers)
        for step, batch in enumerate(state.through(stream), state.start):
            set_rate(optimizer, rate * 0.1 ** sum(step >= steps * share for share in FALLS))
            terms = state.take_step(step, losses, batch)
            state.record(step, terms, note="loss {total:.3f}".format(**terms))
    with torch.no_grad(), state.autocast:
        scores = classify_pixels(model.eval(), val, side, machine.workers)
    kind = "a linear layer on the frozen encoder's map" if model.is_frozen else "FCN on the map"
    scale = "its own size" if side is None else f"{side} px at the short side"
    return Evaluation(
        task=f"segmentation, {'linear' if model.is_frozen else 'FCN'}",
        protocol=f"{kind} of stride {model.stride}, {steps:,} iterations of {batch_size} crops of "
        f"{crop} px at a rate of {rate:g}, images scaled by {LEAST_SCALE:g}…{LARGEST_SCALE:g}; "
        f"each image of val whole, at {scale}",
        measures=scores.measures(),
        resampled=scores.resampled(),
        by_class={name: as_percent(share) for name, share in scores.ious().items()},
        outcomes=scores,
    )


def classify_pixels(
    model: Segmenter, data: SegmentationSet, side: int | None, workers: int | None = None
) -> SegmentationScores:
    """Compare the predictions of all images of a set with their labels, an image at a time.

    Args:
        model: in eval mode.
        data: set of the images.
        side: pixels of an image's short side; None: its own.
        workers: processes that decode, by default what is best here.

    Returns:
        The counts of all images; of processes that are one group each looks at a part of them, and
        all return all.

    Raises:
        CareError: no pixel of the set counts.
    """
    device = next(model.parameters()).device
    count = len(data.keys)
    numbers = range(ranks.rank(), count, ranks.world())
    workers = worker_count(workers, device, batches=len(numbers))
    shown = [[number] for number in numbers]
    batches = load_examples(WholeImages(data, side), shown, workers, collate_fn=list)
    judged: list[_Judged] = []
    with lead_progress(f"segmenting {data.path}", count) as advance:
        for number, [image] in zip(numbers, batches, strict=True):
            predictions = _predict(model, image.pixels.to(device), image.labels.shape)
            confusion = count_pixels(image.labels, predictions, len(data.classes))
            seen = None
            if number < PICTURES:
                pixels = image.pixels.permute(1, 2, 0).numpy()
                seen = make_small(number, pixels, image.labels, predictions)
            judged.append(_Judged(confusion, seen))
            advance(min(ranks.world(), count - number), "")
    every = _gathered(judged, count)
    scores = SegmentationScores(
        add_up([image.confusion for image in every]),
        data.classes,
        data.keys,
        [image.seen for image in every if image.seen is not None],
    )
    if not scores.counts.labelled.any():
        raise CareError(f"no pixel of {data.path} has a class that counts")
    return scores


class _Judged(NamedTuple):
    """An image of val: its pixels by class and prediction, and of the first ones a picture."""

    confusion: Counts
    seen: SeenImage | None


def _check_classes(train: SegmentationSet, val: SegmentationSet) -> None:
    """Refuse sets that cannot be learned from or scored.

    Raises:
        CareError: they name different classes, or one alone.
    """
    if train.classes != val.classes:
        raise CareError(
            f"{train.path} and {val.path} name different classes; read the second with the classes "
            "of the first"
        )
    if len(train.classes) < 2:
        raise CareError(
            f"wanted two classes of pixels and more, got {', '.join(train.classes)} in {train.path}"
        )


def _build(encoder: Encoder, classes: int, shape: SegmenterShape, seed: int) -> Segmenter:
    """A segmenter whose new layers are a function of the seed, without torch's own generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Segmenter(encoder, classes, shape)


def _predict(model: Segmenter, pixels: Tensor, shape: tuple[int, ...]) -> Labels:
    """The surest class of every pixel of an image, at the size of its labels.

    Args:
        model: in eval mode.
        pixels: [3, h, w], RGB of 8 bits, on the model's device.
        shape: height and width of the labels.
    """
    logits = model(pixels[None].float() / 255)
    if logits.shape[2:] != shape:
        logits = F.interpolate(logits, size=shape, mode="bilinear", align_corners=False)
    predictions: Labels = logits[0].argmax(0).to(torch.uint8).cpu().numpy()
    return predictions


def _gathered(judged: list[_Judged], count: int) -> list[_Judged]:
    """The images of all processes, in their order."""
    world = ranks.world()
    if world == 1:
        return judged
    by_rank: list[Any] = [None] * world
    torch.distributed.all_gather_object(by_rank, judged)
    return [by_rank[number % world][number // world] for number in range(count)]
