"""Detection and instance-segmentation transfer by MoCo's protocol."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
import torch
from torch import nn
import shards
from care.encoders import Encoder
from care.errors import CareError
from care.evaluate.average_precision import check
from care.evaluate.coco_metric import average_precision, judge_coco
from care.evaluate.detector import Detector
from care.evaluate.evaluation import Evaluation
from care.evaluate.inference import Batch, average_statistics, detections
from care.evaluate.pictures import Examples, drawn
from care.evaluate.voc_metric import judge_voc
from care.train import ranks
from care.train.batches import load_examples
from care.train.machine import Machine
from care.train.norm import synchronise
from care.train.precision import Precision, fastest_precision
from care.train.run import Run
from care.train.sgd import set_rate
from care.train.weights import digest_of
from shards.boxes import BoxSet
from shards.terminal import Amount, Count, Natural, Range


def detect(
    encoder: Encoder,
    train: BoxSet,
    val: BoxSet,
    run: str | Path,
    *,
    head: Literal["c4", "fpn"] = "c4",
    mask: bool = False,
    size: Annotated[int, Range(32)] = 800,
    iterations: Count | None = None,
    batch_size: Count = 16,
    lr: Amount = 0.02,
    warmup: Natural = 100,
    weight_decay: Amount = 1e-4,
    proposals: Count = 1000,
    anchor_scale: Annotated[float, Range(0.5)] = 8,
    channels: Annotated[int, Range(8)] = 256,
    hidden: Annotated[int, Range(8)] = 1024,
    precise: Natural = 200,
    seed: Natural = 0,
    precision: Precision | None = None,
    device: Literal["cuda", "cpu"] | None = None,
    workers: Natural | None = None,
    checkpoint_every: Count = 500,
) -> Evaluation:
    """Faster R-CNN, or with masks Mask R-CNN, trained on train from the encoder; its last iteration is scored on val (Sec. 4.3).

    MoCo's protocol, as docs/evaluation.md has it: nothing is frozen or chosen on val. A training image is flipped or not, its short side
    drawn from 480, 512 … 800 px, on COCO 640 … 800, at test 800, its longest at most 1333, all times size / 800. SGD with momentum 0.9, no
    decay on norms, the rate × 0.1 after 3/4 and 11/12 of the iterations, on COCO 2/3 and 8/9. Batch norms have the statistics of all
    processes, before the test averaged over training batches. VOC's difficult objects are trained on, crowds not; a VOC list is scored by
    VOC's metric, all else and all masks by COCO's. Interrupted, the same call continues. Processes that train together take a slice of
    each batch and of val; each draws the boxes of its losses.

    Args:
        encoder: is copied, not changed; for c4 a ResNet, else a ``CareError``.
        train: images to learn from; a ``CareError`` where no box counts or, with masks, none has one.
        val: images to score; a ``CareError`` where no box counts or, with masks, one has none, and of other classes.
        run: directory or URL of checkpoints and ``losses.jsonl``; other settings, infinite losses: ``CareError``; signals: ``Stopped``.
        head: c4 pools boxes before a ResNet's last stage, which becomes their head; fpn has a pyramid, for any encoder.
        mask: find masks, too; boxes of train without one are left out.
        size: short side of the images at test, pixels.
        iterations: training steps; by default 24,000 on VOC and 90,000 on COCO.
        batch_size: images a step, on all processes together.
        lr: learning rate for 16 images a step.
        warmup: iterations of linear warm-up.
        weight_decay: of all but norms.
        proposals: boxes an image that the first stage hands to the second one at test.
        anchor_scale: side of the anchors over the stride of their level; c4 has levels of 4 to 64 in one.
        channels: of the feature pyramid and of the mask head.
        hidden: width of the pyramid's box head.
        precise: training batches, the first ones, over which statistics are averaged before the test; 0 keeps the running ones.
        seed: of the new layers' weights, the order, the sizes, the flips, the boxes that are learned from.
        precision: of the arithmetic; by default what the device computes natively.
        device: by default cuda where there is one.
        workers: processes that decode images, by default what is best here.
        checkpoint_every: iterations between checkpoints.
    """
    if train.classes != val.classes:
        raise CareError(
            f"{train.path} and {val.path} name different classes; read the second with the classes of the first"
        )
    for data in (train, val):
        check(data)
        if mask and not (all if data is val else any)(
            one for picture in data.pictures for one in picture.masks
        ):
            raise CareError(
                f"{data.path} has boxes without a mask, polygons or an RLE; add them, or detect without masks"
            )
    if batch_size % ranks.world():
        raise CareError(
            f"cannot cut {batch_size} images a step into {ranks.world()} equal parts; use a multiple of the processes"
        )
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    precision = precision or fastest_precision(where)
    default, falls, least = (
        (24_000, (3 / 4, 11 / 12), 480) if train.voc else (90_000, (2 / 3, 8 / 9), 640)
    )
    iterations, sides = (
        iterations or default,
        [round(side * size / 800) for side in range(least, 801, 32)],
    )
    shape = dict[str, Any](
        head=head,
        mask=mask,
        proposals=proposals,
        anchor_scale=anchor_scale,
        channels=channels,
        hidden=hidden,
    )
    settings = {
        "encoder": digest_of(encoder),
        "data": train.digest,
        **shape,
        "size": size,
        "steps": iterations,
        "batch_size": batch_size,
        "lr": lr,
        "warmup": warmup,
        "weight_decay": weight_decay,
        "seed": seed,
        "precision": precision,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Detector(encoder, len(train.classes), **shape)
    model.to(where).to(memory_format=torch.channels_last).train()
    synchronise(model)
    rate = lr * batch_size / 16
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": decay} for decay in (0, weight_decay)
    ]
    for layer in model.modules():
        for parameter in layer.parameters(recurse=False):
            groups[parameter.ndim > 1 or isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)][
                "params"
            ].append(parameter)
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9, fused=True)

    def batches(start: int, stop: int) -> Iterator[Batch]:
        order = (
            shards.step_ids(len(train.pictures), batch_size=batch_size, step=step, seed=seed)
            for step in range(start, stop)
        )
        views = (
            [
                drawn(seed, ids.epoch, int(n), sides)
                for n in ids.of_rank(ranks.rank(), ranks.world())
            ]
            for ids in order
        )
        decoders = min(state.workers, max(stop - start, 0))
        for batch in load_examples(Examples(train, size, mask), views, decoders, collate_fn=list):
            yield (
                [x.to(where) for x, _ in batch],
                [{name: value.to(where) for name, value in target.items()} for _, target in batch],
            )

    with Run(
        run,
        model,
        optimizer,
        settings,
        title="detection",
        precision=precision,
        machine=Machine(workers=workers, checkpoint_every=checkpoint_every),
    ) as state:
        losses = ranks.parallel(model)
        stream = batches(state.start, iterations)
        for step, batch in state.through(enumerate(stream, state.start)):
            warm = min(1, (step + 1) / max(warmup, 1))
            fallen = 0.1 ** sum(step >= iterations * part for part in falls)
            set_rate(optimizer, rate * (warm * fallen))
            terms = state.take_step(step, losses, batch)
            note = "loss {total:.3f} class {classifier:.3f} box {box_reg:.3f}".format(**terms)
            state.record(step, terms, note=note)
    with torch.no_grad(), state.autocast:
        if precise:
            average_statistics(
                model,
                batches(0, min(precise, iterations)),
                min(precise, iterations) * batch_size,
                seed,
            )
        found = detections(model.eval(), val, size, workers)
    judged = judge_voc(val, found) if val.voc else judge_coco(val, found)
    measures = judged.precision._asdict()
    if mask:
        measures |= {
            f"mask_{name}": value
            for name, value in average_precision(val, found, masks=True)._asdict().items()
        }
    protocol = f"{'Mask' if mask else 'Faster'} R-CNN, everything trained for {iterations:,} iterations of {batch_size} images at a rate"
    protocol += f" of {rate:g}, short sides of {sides[0]}…{size} px, at test {size} px; {proposals} proposals"
    task = f"{'VOC' if val.voc else 'COCO'} {head.upper()}"
    task += " without masks" if not val.voc and not mask else ""
    return Evaluation(task, protocol, measures, resampled=judged.resampled())
