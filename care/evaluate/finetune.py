"""Semi-supervised evaluation: the whole network fine-tuned on few labels."""

from pathlib import Path
from typing import Literal
import numpy as np
import shards
from care.encoders import Encoder
from care.evaluate.choice import Labelled, choose, shuffle_labelled
from care.evaluate.evaluation import Evaluation, classification, comparable
from care.evaluate.features import device_of
from care.evaluate.few_labels import Labels, labelled_rows
from care.evaluate.images import Crops
from care.evaluate.predictions import Predictions, predictions_of
from care.evaluate.recipes import RECIPES, Candidate, Recipe, candidates_of, changed_recipe
from care.evaluate.trial import Plan, train_and_score
from care.train.machine import Machine
from care.train.precision import Precision, fastest_precision
from care.train.weights import digest_of
from shards import storage
from shards.bounds import BatchSize, Fraction, NonNegativeInt
from shards.image_size import image_size


def finetune(  # noqa: PLR0913 (a public verb)
    encoder: Encoder,
    train: shards.ShardSet,
    val: shards.ShardSet,
    run: str | Path,
    *,
    labels: Labels,
    crops: Crops = Crops(),
    recipe: Literal["swav", "byol", "barlow-twins"] = "swav",
    lrs: tuple[float, ...] | None = None,
    head_lrs: tuple[float, ...] | None = None,
    epochs: tuple[int, ...] | None = None,
    batch_size: BatchSize | None = None,
    held_out: Fraction = 0.2,
    seed: NonNegativeInt = 0,
    precision: Precision | None = None,
    machine: Machine = Machine(),
) -> Evaluation:
    """The whole network and a linear head fine-tuned on few labels of train.

    Protocol: random resized crops and flips; SGD with Nesterov momentum 0.9, no weight decay,
    cosine to 0 (BYOL's). Where there is more than one, each pair of learning rates with each number
    of epochs is trained without the held-out part of the labels; the best there, by top-1, then by
    cross-entropy, is trained on all of them. Its last epoch is scored on val, which chooses
    nothing. Interrupted, the same call continues.

    Args:
        encoder: is copied, not changed; used on its device.
        train: set with the labels.
        val: set to score.
        run: directory or URL of the trainings.
        labels: which images of train are learned from.
        crops: how much of an image is shown.
        recipe: whose learning rates, epochs and batch size, unless they are given.
        lrs: learning rates of the encoder to choose from, for 256 images a step.
        head_lrs: those of the head, one for each; by default the encoder's.
        epochs: passes over the labelled images, to choose from.
        batch_size: images a step, at most the labelled ones.
        held_out: share of the labelled images that chooses.
        seed: of the labelled and the held-out part, the order and the crops.
        precision: of the arithmetic; by default what the device computes natively.
        machine: what decides no result; the device is the encoder's.

    Returns:
        ``top1`` of val, per cent, ``top5`` where there are more than five classes, ``balanced``
        where these differ in number, and the rates and epochs that were chosen. Accuracy by class,
        and the predictions.

    Raises:
        Misuse: ``labels`` has not exactly one field, or rates of encoder and head do not pair.
        CareError: images of val have classes that train does not have; those to learn from have
            none, or are too few to hold a part out; the run is of other settings; or all
            candidates diverged.
        Stopped: SIGINT or SIGTERM came; all is saved, the same call continues.

    Source: Grill et al. 2020 (BYOL), Caron et al. 2020 (SwAV), Zbontar et al. 2021 (Barlow Twins).
    """
    _, val, remark = comparable(train, val)
    chosen_rows = labelled_rows(train, labels, seed=seed)
    chosen_recipe = changed_recipe(
        RECIPES[recipe], lrs=lrs, head_lrs=head_lrs, epochs=epochs, batch_size=batch_size
    )
    must_choose = len(candidates_of(chosen_recipe)) > 1
    labelled = shuffle_labelled(train, chosen_rows, held_out, seed, must_choose=must_choose)
    plan = Plan(
        encoder=encoder,
        encoder_digest=digest_of(encoder),
        train=train,
        batch_size=chosen_recipe.batch_size,
        size=image_size(crops.size or encoder.size),
        min_scale=crops.min_scale,
        seed=seed,
        precision=precision or fastest_precision(device_of(encoder)),
        machine=machine,
    )
    candidate = choose(plan, labelled, chosen_recipe, run)
    folder = f"{storage.locate(run)}/all labels"
    scores = train_and_score(plan, labelled.rows, candidate, folder, val, np.arange(len(val)))
    predictions = predictions_of(val, scores.ranking)
    result = describe(plan, labelled, chosen_recipe, candidate, predictions)
    return result._replace(protocol=result.protocol + remark)


def describe(
    plan: Plan,
    labelled: Labelled,
    recipe: Recipe,
    candidate: Candidate,
    predictions: Predictions,
) -> Evaluation:
    """The record of a fine-tuning.

    Args:
        plan: what all trainings had in common.
        labelled: the images that were learned from.
        recipe: of which one candidate was chosen.
        candidate: that one.
        predictions: of the images of val.
    """
    count = len(labelled.rows)
    all_labels = int((plan.train.labels >= 0).sum())
    candidates = len(candidates_of(recipe))
    choice = "as given"
    if candidates > 1:
        choice = f"the best of {candidates} on held-out ones"
    return classification(
        predictions,
        task=f"{share_text(count / all_labels)} of the labels",
        protocol=f"the whole network fine-tuned on {count} labelled images, crops of {plan.size} "
        f"px, batch {min(plan.batch_size, count)}, learning rates and epochs {choice}",
        chosen={
            "lrs": (candidate.lr,),
            "head_lrs": (candidate.head_lr,),
            "epochs": (candidate.epochs,),
        },
    )


def share_text(share: float) -> str:
    """A share of 1 in per cent as it is: with a decimal, below 1 % with two digits that say it."""
    percent = 100 * share
    text = f"{percent:.1f}" if percent >= 0.95 else f"{percent:.2g}"
    return f"{text.removesuffix('.0')} %"
