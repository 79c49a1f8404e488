"""Detection and instance segmentation: a detector is trained on an encoder, then scored."""

import itertools
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple
import torch
from care.encoded import refuse_bands
from care.encoders import Encoder
from care.errors import CareError
from care.evaluate.average_precision import Detections, check_countable
from care.evaluate.coco_metric import Backend, judge_coco
from care.evaluate.coco_results import DetectionResults
from care.evaluate.dense_training import (
    check_slices,
    decay_all_but_norms,
    warn_of_differences,
)
from care.evaluate.detector import Detector
from care.evaluate.detector_forms import DetectorShape
from care.evaluate.evaluation import Evaluation
from care.evaluate.faster_coco import check_installed
from care.evaluate.inference import average_statistics, find_objects
from care.evaluate.pictures import Examples, training_batches
from care.evaluate.predictions import DECIMALS
from care.evaluate.voc_metric import judge_voc
from care.train import ranks
from care.train.devices import torch_device
from care.train.machine import Machine
from care.train.norm import synchronise
from care.train.precision import Precision, continued_precision
from care.train.rates import set_rate
from care.train.run import Run
from care.train.weights import digest_of
from shards.bounds import NonNegativeFloat, NonNegativeInt, PositiveInt, Range
from shards.boxes import BoxSet

TEST_SIDE = 800  # px, the short side at test for which the sides of training are published
SIDE_STEP = 32  # px, between the sides of training
IMAGES = 16  # a step, which the learning rate is for
NOTE = "loss {total:.3f} class {classifier:.3f} box {box_reg:.3f}"


class Protocol(NamedTuple):
    """What the kind of the training set decides: detectron2's settings, as MoCo has them.

    Attributes:
        iterations: training steps.
        falls: shares of the iterations after which the rate falls to a tenth.
        least_side: px, the shortest of the short sides in training.
    """

    iterations: int
    falls: tuple[float, float]
    least_side: int

    def sides(self, size: int) -> list[int]:
        """Short sides of the images in training, for one at test, pixels."""
        published = range(self.least_side, TEST_SIDE + 1, SIDE_STEP)
        return [round(side * size / TEST_SIDE) for side in published]


VOC = Protocol(iterations=24_000, falls=(3 / 4, 11 / 12), least_side=480)
COCO = Protocol(iterations=90_000, falls=(2 / 3, 8 / 9), least_side=640)


def detect(  # noqa: PLR0913 (a public verb)
    encoder: Encoder,
    train: BoxSet,
    val: BoxSet,
    run: str | Path,
    *,
    shape: DetectorShape = DetectorShape(),
    size: Annotated[int, Range(32)] = 800,
    iterations: PositiveInt | None = None,
    batch_size: PositiveInt = 16,
    lr: NonNegativeFloat = 0.02,
    warmup: NonNegativeInt = 100,
    weight_decay: NonNegativeFloat = 1e-4,
    precise: NonNegativeInt = 200,
    seed: NonNegativeInt = 0,
    precision: Precision | None = None,
    metric_backend: Backend = "pycocotools",
    machine: Machine = Machine(),
) -> Evaluation:
    """Faster R-CNN, or with masks Mask R-CNN, fine-tuned on an encoder (Sec. 4.3).

    Protocol, MoCo's, as docs/evaluation.md has it: nothing is frozen or chosen on val. A training
    image is flipped or not, its short side drawn from 480, 512 … 800 px, on COCO 640 … 800, at test
    800, its longest at most 1333, all times size / 800. SGD with momentum 0.9, no decay on norms,
    the rate × 0.1 after 3/4 and 11/12 of the iterations, on COCO 2/3 and 8/9. Batch norms have the
    statistics of all processes, before the test averaged over training batches. VOC's difficult
    objects are trained on, crowds not; a VOC list is scored by VOC's metric, all else and all masks
    by COCO's. The last iteration is scored on val. Interrupted, the same call continues.

    Processes that train together take a slice of each batch and of val; each draws the boxes of its
    losses.

    Args:
        encoder: is copied, not changed; for c4 a ResNet.
        train: images to learn from.
        val: images to score.
        run: directory or URL of checkpoints and ``losses.jsonl``.
        shape: what the detector is like.
        size: short side of the images at test, pixels.
        iterations: training steps; by default 24,000 on VOC and 90,000 on COCO.
        batch_size: images a step, on all processes together.
        lr: learning rate for 16 images a step.
        warmup: iterations of linear warm-up.
        weight_decay: of all but norms.
        precise: training batches, the first ones, over which statistics are averaged before the
            test; 0 keeps the running ones.
        seed: of the new layers' weights, the order, the sizes, the flips, the boxes that are
            learned from.
        precision: of the arithmetic; by default what the device computes natively.
        metric_backend: what counts COCO's metric. faster-coco-eval gives equal figures, sooner, and
            is named in the protocol; VOC's own metric has no use for it.
        machine: what decides no result.

    Returns:
        ``ap``, ``ap50`` and ``ap75`` of the boxes, per cent, and with masks those of the masks; AP
        by class and by COCO's sizes; and the detections.

    Raises:
        CareError: the sets name different classes; one has no box that counts, or with masks lacks
            them; c4 is asked of what is no ResNet; a batch cannot be shared among the processes;
            the run is of other settings; a loss is not finite; or faster-coco-eval is wanted and
            not installed.
        Stopped: SIGINT or SIGTERM came; all is saved, the same call continues.

    Source: He et al. 2020 (MoCo), Sec. 4.2 and Appendix; detectron2's baselines.
    """
    refuse_bands(3, encoder)
    _check_sets(train, val, mask=shape.mask)
    warn_of_differences(train.pixels, val.pixels)
    check_slices(batch_size)
    if metric_backend == "faster-coco-eval":
        check_installed()
    device = torch_device(machine.device)
    precision = continued_precision(run, precision, device)
    protocol = VOC if train.voc else COCO
    steps = iterations or protocol.iterations
    sides = protocol.sides(size)
    settings = {
        "encoder": digest_of(encoder),
        "data": train.digest,
        **asdict(shape),
        "size": size,
        "steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "warmup": warmup,
        "weight_decay": weight_decay,
        "seed": seed,
        "precision": precision,
    }
    model = _build(encoder, len(train.classes), shape, seed).to(device)
    model.to(memory_format=torch.channels_last).train()
    synchronise(model)
    groups = decay_all_but_norms(model, weight_decay)
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9, fused=True)
    rate = lr * batch_size / IMAGES
    batches = partial(
        training_batches,
        Examples(train, size, shape.mask),
        sides,
        batch_size=batch_size,
        seed=seed,
        device=device,
    )
    with Run(
        run, model, optimizer, settings, title="detection", precision=precision, machine=machine
    ) as state:
        losses = ranks.parallel(model)
        stream = batches(steps=range(state.start, steps), workers=state.workers)
        for step, batch in enumerate(state.through(stream), state.start):
            set_rate(optimizer, rate * rate_factor(step, protocol, steps=steps, warmup=warmup))
            terms = state.take_step(step, losses, batch)
            state.record(step, terms, note=NOTE.format(**terms))
    with torch.no_grad(), state.autocast:
        if precise > 0:
            first_steps = range(min(precise, steps))
            stream = batches(steps=first_steps, workers=state.workers)
            average_statistics(model, stream, len(first_steps) * batch_size, seed)
        detections = find_objects(model.eval(), val, size, machine.workers)
    network = "Mask" if shape.mask else "Faster"
    return _score(
        val,
        detections,
        shape,
        f"{network} R-CNN, everything trained for {steps:,} iterations of {batch_size} images at a "
        f"rate of {rate:g}, short sides of {sides[0]}…{size} px, at test {size} px; "
        f"{shape.proposals} proposals",
        metric_backend,
    )


def _check_sets(train: BoxSet, val: BoxSet, *, mask: bool) -> None:
    """Refuse sets that cannot be learned from or scored.

    Raises:
        CareError: they name different classes, a set has no box that counts, or with ``mask`` no
            box of train has a mask, or a box of val has none.
    """
    if train.classes != val.classes:
        raise CareError(
            f"{train.path} and {val.path} name different classes; read the second with the classes "
            "of the first"
        )
    for data in (train, val):
        check_countable(data)
        shapes = itertools.chain.from_iterable(picture.masks for picture in data.pictures)
        has_masks = [bool(shape) for shape in shapes]
        if mask and not (all(has_masks) if data is val else any(has_masks)):
            raise CareError(
                f"{data.path} has boxes without a mask, polygons or an RLE; add them, or detect "
                "without masks"
            )


def _build(encoder: Encoder, classes: int, shape: DetectorShape, seed: int) -> Detector:
    """A detector whose new layers are a function of the seed, without torch's own generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Detector(encoder, classes, shape)


def rate_factor(step: int, protocol: Protocol, *, steps: int, warmup: int) -> float:
    """Learning rate of a step over the full one: a linear warm-up, then two falls to a tenth.

    Args:
        step: from 0 on.
        protocol: says where the rate falls.
        steps: of the whole training.
        warmup: steps of the warm-up.
    """
    warm = min(1, (step + 1) / max(warmup, 1))
    falls = sum(step >= steps * share for share in protocol.falls)
    factor: float = warm * 0.1**falls
    return factor


def _score(
    val: BoxSet,
    detections: list[Detections],
    shape: DetectorShape,
    protocol: str,
    backend: Backend,
) -> Evaluation:
    """The record of a detector, its boxes by the metric of the set, its masks by COCO's."""
    by_coco = partial(judge_coco, val, detections, backend=backend)
    judged = judge_voc(val, detections) if val.voc else by_coco()
    if backend != "pycocotools" and (shape.mask or not val.voc):
        protocol += f"; scored by {backend}"
    measures = judged.precision._asdict()
    by_size = judged.by_size
    if shape.mask:
        of_masks = by_coco(masks=True)
        measures |= {f"mask_{name}": value for name, value in of_masks.precision._asdict().items()}
        by_size = by_size | {f"mask {name}": ap for name, ap in of_masks.by_size.items()}
    return Evaluation(
        task=_task(val, shape),
        protocol=protocol,
        measures={name: round(value, DECIMALS) for name, value in measures.items()},
        resampled=judged.resampled(),
        by_class=judged.by_class(val.classes),
        by_size=by_size,
        outcomes=DetectionResults(val, detections),
    )


def _task(val: BoxSet, shape: DetectorShape) -> str:
    """The task as the paper's tables have it, which on COCO has masks."""
    task = f"{'VOC' if val.voc else 'COCO'} {shape.head.upper()}"
    if not val.voc and not shape.mask:
        task += " without masks"
    return task
