"""A linear classifier on a frozen encoder."""

import json
from pathlib import Path
import numpy as np
import torch
import shards
from care import CareError, lr_at
from care.encoded import evaluating
from care.encoders import Encoder
from care.evaluate.evaluation import Accuracy, Evaluation, same_classes
from care.evaluate.features import extract, frozen
from care.evaluate.images import centres, crops
from care.evaluate.linear_features import FAST_LRS, linear_hits
from care.evaluate.linear_heads import LinearHeads, held_out_rows, percent
from care.evaluate.resampling import resampled_mean
from care.train.loading import worker_count
from care.train.machine import Machine
from care.train.precision import Precision
from care.train.run import Run
from care.train.sgd import set_rate
from care.train.weights import digest_of
from shards.terminal import Count, Natural, Positive, Share, Side

LRS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
SCORED = (
    1,
    2,
    5,
    7,
)  # epochs after which the released code scores, beside every tenth and the last


def linear(
    encoder: Encoder,
    train: shards.ShardSet,
    val: shards.ShardSet,
    run: str | Path,
    *,
    size: Side | None = None,
    fast: bool = False,
    lrs: tuple[float, ...] | None = None,
    epochs: Count = 80,
    batch_size: Count = 256,
    norm: bool = False,
    min_scale: Positive = 0.08,
    held_out: Share = 0.2,
    seed: Natural = 0,
    precision: Precision = "fp32",
    workers: Natural | None = None,
    checkpoint_every: Count = 500,
    cache: str | Path | None = None,
) -> Evaluation:
    """A linear layer on a frozen encoder, trained on random crops and flips by the paper's recipe (Sec. 4.1).

    SGD with momentum 0.9, no weight decay, cosine to 0. All learning rates are trained in one pass, each twice: without the held-out
    part of train, which chooses the rate, and on all of train, which is scored on val. The last epoch is the headline, the best one
    (as the released code reports) stands beside it; val chooses neither. Interrupted, the same call continues.

    Args:
        encoder: used on the device it is on, in eval mode; not changed by a bit.
        train: set to learn from; images without label, or too few to hold some out, are a ``CareError``.
        val: set to classify; other classes are a ``CareError``.
        run: directory or URL of the checkpoints and ``losses.jsonl``; other settings are a ``CareError``, SIGINT and SIGTERM ``Stopped``.
        size: side of the crops, pixels; by default that of the encoder's training.
        fast: train on features of centre crops instead, standardised and extracted once: minutes, but another protocol.
        lrs: to choose from, for 256 images a step (the paper's is 0.2); by default ten of 0.05 … 30, or with fast seven of 0.01 … 10.
        epochs: passes over train.
        batch_size: images a step, fewer where train is smaller.
        norm: batch norm after the layer, as the released code has it.
        min_scale: least share of an image's area in a training crop.
        held_out: share of train that chooses the learning rate, at most 10,000 images (BYOL's number).
        seed: of the layer's weights, the held-out part, the order and the crops.
        precision: of the encoder's arithmetic; the layer's is float32.
        workers: processes that decode images, by default what is best here.
        checkpoint_every: steps between checkpoints.
        cache: see ``extract``.
    """
    same_classes(train, val)
    size, before = size or encoder.size, digest_of(encoder)
    if bool((train.labels < 0).any()):
        raise CareError(
            f"{train.path} has images without a class; the linear evaluation needs a set built from class folders"
        )
    held, batch, where = (
        held_out_rows(len(train), held_out, seed),
        min(batch_size, len(train)),
        next(encoder.parameters()).device,
    )
    recipe = (
        f"{epochs} epochs of SGD at batch {batch}, learning rate chosen on held-out images of train"
    )
    asked = extract(encoder, val, size=size, workers=workers, precision=precision, cache=cache)
    if fast:
        known = extract(
            encoder, train, size=size, workers=workers, precision=precision, cache=cache
        )
        right, lr = linear_hits(
            known,
            asked,
            lrs=lrs or FAST_LRS,
            epochs=epochs,
            batch_size=batch_size,
            norm=norm,
            held_out=held_out,
            seed=seed,
            device=where,
        )
        protocol = f"one linear layer on standardised frozen features of centre crops of {size} px, {recipe}; not the paper's protocol"
        return Evaluation(
            "linear on cached features",
            protocol,
            Accuracy(*percent(right).tolist())._asdict(),
            {"lrs": (lr,)},
            resampled_mean(right[:, 0]),
        )
    lrs, per_epoch = lrs or LRS, len(train) // batch
    steps, kept = epochs * per_epoch, ~torch.isin(torch.arange(len(train)), held)
    heads = LinearHeads(encoder.features, len(train.classes), lrs, norm, seed).to(where)
    optimizer = torch.optim.SGD(heads.parameters(), lr=0, momentum=0.9)
    settings = {
        "encoder": before,
        "data": train.digest,
        "val": val.digest,
        "size": size,
        "lrs": lrs,
        "steps": steps,
        "norm": norm,
        "batch_size": batch,
        "min_scale": min_scale,
        "held_out": len(held),
        "seed": seed,
        "precision": precision,
    }
    losses = lambda x, y, rows: {"heads": heads.loss(frozen(encoder, x, precision), y, kept[rows])}  # noqa: E731

    def scores(step: int) -> dict[str, float]:
        epoch, rest = divmod(step + 1, per_epoch)
        scored = rest == 0 and (epoch in SCORED or epoch % 10 == 0 or epoch == epochs)
        if not scored:
            return {}
        tops = heads.scores(torch.split(asked.x, 1024), asked.y)[0, 1].tolist()
        return {f"val {lr:g}": top for lr, top in zip(lrs, tops, strict=True)}

    state = Run(
        run,
        heads,
        optimizer,
        settings,
        title="linear",
        precision="fp32",
        machine=Machine(workers=workers, checkpoint_every=checkpoint_every),
    )
    with evaluating(encoder), state:
        stream = crops(state, train, np.arange(len(train)), state.workers)
        for step, images in state.through(enumerate(stream, state.start)):
            set_rate(optimizer, lr_at(step, total=steps, base=batch / 256))
            terms = state.take_step(step, losses, images)
            state.record(step, terms, scores(step))
        batches = [part.tolist() for part in torch.split(held, batch_size)]
        batch_bytes = batch_size * 3 * size**2
        workers = worker_count(workers, where, batches=len(batches), batch_bytes=batch_bytes)
        x = torch.cat(
            [
                frozen(encoder, images, precision)
                for images in centres(train, batches, size=size, workers=workers)
            ]
        )
    if digest_of(encoder) != before:
        raise CareError(
            "the encoder has changed under a linear evaluation, which must not be: its result would be of another encoder"
        )
    held_out_labels = torch.from_numpy(train.labels[held])
    best = int(heads.scores(torch.split(x, 1024), held_out_labels)[0, 0].argmax())
    right = heads.hits(torch.split(asked.x, 1024), asked.y)[:, :, 1, best]
    top1, top5 = percent(right).tolist()
    rows = [json.loads(line) for line in (state.path / "losses.jsonl").read_text().splitlines()]
    measures = {
        "top1": top1,
        "top5": top5,
        "best1": max(row.get(f"val {lrs[best]:g}", 0.0) for row in rows),
    }
    protocol = f"one linear layer{' and batch norm' * norm} on the frozen encoder, random crops of {size} px and flips, {recipe}"
    chosen = {"lrs": (lrs[best],)}
    return Evaluation("linear", protocol, measures, chosen, resampled_mean(right[:, 0]))
