"""A linear classifier on a frozen encoder, by the paper's protocol or a fast one."""

import json
from functools import partial
from pathlib import Path
from typing import Any
import torch
import shards
from care.encoded import evaluating
from care.encoders import Encoder
from care.errors import CareError
from care.evaluate.evaluation import Evaluation, classification, comparable
from care.evaluate.features import Features, device_of, extract
from care.evaluate.images import Crops
from care.evaluate.linear_features import FAST_LRS, linear_ranking
from care.evaluate.linear_heads import (
    ROWS_AT_ONCE,
    HeadTraining,
    LinearHeads,
    held_out_rows,
)
from care.evaluate.linear_training import LinearPlan, held_out_features, steps_of_epoch, train_heads
from care.evaluate.predictions import as_percent, predictions_of
from care.train.machine import Machine
from care.train.precision import Precision
from care.train.weights import digest_of
from shards.bounds import Fraction, NonNegativeInt, PositiveInt
from shards.image_size import image_size

LRS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)


def linear(  # noqa: PLR0913 (a public verb)
    encoder: Encoder,
    train: shards.ShardSet,
    val: shards.ShardSet,
    run: str | Path,
    *,
    crops: Crops = Crops(),
    fast: bool = False,
    lrs: tuple[float, ...] | None = None,
    epochs: PositiveInt = 80,
    batch_size: PositiveInt = 256,
    norm: bool = False,
    held_out: Fraction = 0.2,
    seed: NonNegativeInt = 0,
    precision: Precision = "fp32",
    machine: Machine = Machine(),
    cache: str | Path | None = None,
) -> Evaluation:
    """A linear layer on a frozen encoder, trained on random crops and flips (Sec. 4.1).

    Protocol: SGD with momentum 0.9, no weight decay, cosine to 0. All learning rates are trained in
    one pass, each twice: without the held-out part of train, which chooses the rate, and on all of
    train, which is scored on val. The last epoch is the headline, the best one (as the released
    code reports) stands beside it; val chooses neither. Interrupted, the same call continues.

    Args:
        encoder: used on the device it is on, in eval mode; not changed by a bit.
        train: set to learn from.
        val: set to classify.
        run: directory or URL of the checkpoints and ``losses.jsonl``.
        crops: how much of an image is shown.
        fast: train on features of centre crops instead, standardised and extracted once: minutes,
            but another protocol.
        lrs: to choose from, for 256 images a step (the paper's is 0.2); by default ten of
            0.05 … 30, or with fast seven of 0.01 … 10.
        epochs: passes over train.
        batch_size: images a step, fewer where train is smaller.
        norm: batch norm after the layer, as the released code has it.
        held_out: share of train that chooses the learning rate, at most 10,000 images (BYOL's
            number).
        seed: of the layer's weights, the held-out part, the order and the crops.
        precision: of the encoder's arithmetic; the layer's is float32.
        machine: what decides no result; the device is the encoder's.
        cache: see ``extract``.

    Returns:
        ``top1`` of val, per cent, ``top5`` where there are more than five classes, ``balanced``
        where these differ in number, ``best1``, the top-1 of the best epoch, and the learning rate
        that was chosen; with ``fast`` no ``best1``. Accuracy by class, and the predictions.

    Raises:
        CareError: images of val have classes that train does not have, or those of train are too
            few to hold some out; the run is of other settings; a loss is not finite; or the encoder
            has changed.
        Stopped: SIGINT or SIGTERM came; all is saved, the same call continues.
    """
    train, val, remark = comparable(train, val)
    plan = LinearPlan(
        size=image_size(crops.size or encoder.size),
        min_scale=crops.min_scale,
        training=HeadTraining(
            lrs=lrs or (FAST_LRS if fast else LRS),
            epochs=epochs,
            batch_size=min(batch_size, len(train)),
            norm=norm,
            held_out=held_out,
            seed=seed,
        ),
        held_out=held_out_rows(len(train), held_out, seed),
        precision=precision,
        machine=machine,
    )
    # before anything is computed: the encoder must stay as it is now
    encoder_digest = digest_of(encoder)
    extract_from = partial(
        extract,
        encoder,
        size=plan.size,
        workers=machine.workers,
        precision=precision,
        cache=cache,
    )
    val_features = extract_from(val)
    if fast:
        result = _on_cached_features(
            extract_from(train), val_features, val, plan, device_of(encoder)
        )
        return result._replace(protocol=result.protocol + remark)
    settings = {
        "encoder": encoder_digest,
        "data": train.digest,
        "val": val.digest,
        "size": plan.size,
        "lrs": plan.training.lrs,
        "steps": epochs * steps_of_epoch(train, plan),
        "norm": norm,
        "batch_size": plan.training.batch_size,
        "min_scale": plan.min_scale,
        "held_out": len(plan.held_out),
        "seed": seed,
        "precision": precision,
    }
    result = _on_random_crops(encoder, train, val, val_features, run, plan, settings)
    return result._replace(protocol=result.protocol + remark)


def _on_cached_features(
    train_features: Features,
    val_features: Features,
    val: shards.ShardSet,
    plan: LinearPlan,
    device: torch.device,
) -> Evaluation:
    """The fast protocol, on features of centre crops."""
    ranking, lr = linear_ranking(train_features, val_features, plan.training, device=device)
    return classification(
        predictions_of(val, ranking),
        task="linear on cached features",
        protocol="one linear layer on standardised frozen features of centre crops of "
        f"{plan.size} px, {_recipe(plan)}; not the paper's protocol",
        chosen={"lrs": (lr,)},
    )


def _on_random_crops(
    encoder: Encoder,
    train: shards.ShardSet,
    val: shards.ShardSet,
    val_features: Features,
    run: str | Path,
    plan: LinearPlan,
    settings: dict[str, Any],
) -> Evaluation:
    """The paper's protocol.

    Raises:
        CareError: the encoder has changed.
    """
    training = plan.training
    heads = LinearHeads(
        encoder.features, len(train.classes), training.lrs, training.norm, training.seed
    )
    heads.to(device_of(encoder))
    with evaluating(encoder):
        log = train_heads(heads, encoder, train, val_features, run, plan, settings)
        features = held_out_features(encoder, train, plan)
    if digest_of(encoder) != settings["encoder"]:
        raise CareError(
            "the encoder has changed under a linear evaluation, which must not be: its result "
            "would be of another encoder"
        )
    labels = torch.from_numpy(train.labels[plan.held_out])
    held_out_scores = heads.scores(torch.split(features, ROWS_AT_ONCE), labels)
    chosen = int(held_out_scores[0].argmax())
    rankings = heads.rankings(torch.split(val_features.x, ROWS_AT_ONCE))
    lr = training.lrs[chosen]
    norm = " and batch norm" if training.norm else ""
    return classification(
        predictions_of(val, rankings[:, 1, chosen]),
        task="linear",
        protocol=f"one linear layer{norm} on the frozen encoder, random crops of {plan.size} px "
        f"and flips, {_recipe(plan)}",
        chosen={"lrs": (lr,)},
        more={"best1": _best_epoch(log, lr)},
    )


def _best_epoch(log: Path, lr: float) -> float:
    """The highest top-1 of val that was logged for a learning rate, per cent."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    best = max(float(row.get(f"val {lr:g}", 0)) for row in rows)
    return as_percent(best / 100)


def _recipe(plan: LinearPlan) -> str:
    """How the classifiers were trained, in words."""
    return (
        f"{plan.training.epochs} epochs of SGD at batch {plan.training.batch_size}, learning rate "
        "chosen on held-out images of train"
    )
