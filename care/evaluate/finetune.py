"""Semi-supervised evaluation: the whole network fine-tuned on few labels."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple
import numpy as np
import shards
from care.encoders import Encoder
from care.errors import CareError, Diverged
from care.evaluate.evaluation import Evaluation, accuracy_of, check_same_classes
from care.evaluate.features import device_of
from care.evaluate.few_labels import Labels, labelled_rows
from care.evaluate.images import Crops, Rows
from care.evaluate.recipes import RECIPES, Candidate, Recipe, candidates_of, changed_recipe
from care.evaluate.resampling import resampled_mean
from care.evaluate.trial import Scores, Trial, train_and_score
from care.train.machine import Machine
from care.train.mirror import local_copy
from care.train.precision import Precision, fastest_precision
from care.train.weights import digest_of
from shards import storage
from shards.bounds import BatchSize, Fraction, NonNegativeInt
from shards.order import permutation

CHOICE = "chosen.json"  # which candidate the held-out labels chose


class Labelled(NamedTuple):
    """The images to learn from, in a random order.

    Attributes:
        rows: their numbers in train.
        held_out: how many of them, the first ones, choose the candidate.
    """

    rows: Rows
    held_out: int


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
        ``top1`` and ``top5`` of val, per cent, and the rates and epochs that were chosen.

    Raises:
        Misuse: ``labels`` has not exactly one field, or rates of encoder and head do not pair.
        CareError: the sets have different classes; images to learn from have none, or are too few
            to hold a part out; the run is of other settings; or all candidates diverged.
        Stopped: SIGINT or SIGTERM came; all is saved, the same call continues.

    Source: Grill et al. 2020 (BYOL), Caron et al. 2020 (SwAV), Zbontar et al. 2021 (Barlow Twins).
    """
    check_same_classes(train, val)
    chosen_rows = labelled_rows(train, labels, seed=seed)
    chosen_recipe = changed_recipe(
        RECIPES[recipe], lrs=lrs, head_lrs=head_lrs, epochs=epochs, batch_size=batch_size
    )
    must_choose = len(candidates_of(chosen_recipe)) > 1
    labelled = _shuffled(train, chosen_rows, held_out, seed, must_choose=must_choose)
    trial = Trial(
        encoder=encoder,
        encoder_digest=digest_of(encoder),
        train=train,
        batch_size=chosen_recipe.batch_size,
        size=crops.size or encoder.size,
        min_scale=crops.min_scale,
        seed=seed,
        precision=precision or fastest_precision(device_of(encoder)),
        machine=machine,
    )
    candidate = choose(trial, labelled, chosen_recipe, run)
    folder = f"{storage.locate(run)}/all labels"
    scores = train_and_score(trial, labelled.rows, candidate, folder, val, np.arange(len(val)))
    return describe(trial, labelled, chosen_recipe, candidate, scores)


def _shuffled(
    train: shards.ShardSet,
    rows: Rows,
    share: float,
    seed: int,
    *,
    must_choose: bool,
) -> Labelled:
    """The labelled images in a random order, of which the first ones are held out.

    Args:
        train: set of the images.
        rows: their numbers in it.
        share: of them that is held out.
        seed: of the order.
        must_choose: whether there are several candidates.

    Raises:
        CareError: an image has no class, or they are too few.
    """
    shuffled = rows[permutation(len(rows), seed=seed, stream=0)]
    held_out = round(len(shuffled) * share)
    cannot_choose = must_choose and held_out == 0
    cannot_learn = len(shuffled) - held_out < 2
    if cannot_choose or cannot_learn or (train.labels[shuffled] < 0).any():
        raise CareError(
            f"cannot hold {share:.0%} of {len(shuffled)} labelled images of {train.path} out; "
            "use more, all with a label"
        )
    return Labelled(shuffled, held_out)


def choose(
    trial: Trial,
    labelled: Labelled,
    recipe: Recipe,
    run: str | Path,
) -> Candidate:
    """The candidate that is best on the held-out labels when trained on the others.

    The choice is remembered in the run directory; then the candidates' trainings are removed.

    Args:
        trial: what all trainings have in common.
        labelled: the images to learn from.
        recipe: whose candidates are tried; a single one is not.
        run: directory or URL of the trainings.

    Raises:
        CareError: all candidates diverged, or the choice was made with other images or settings.
    """
    place = storage.locate(run)
    candidates = candidates_of(recipe)
    folders = [
        f"{place}/lr {candidate.lr:g} {candidate.head_lr:g}, {candidate.epochs} epochs"
        for candidate in candidates
    ]
    best = candidates[0]
    if len(candidates) > 1:
        key = _key(trial, labelled, candidates)
        if CHOICE not in storage.listing(place):
            scores = _try_all(trial, labelled, recipe, folders)
            choice = {"key": key, "best": scores.index(max(scores)), "scores": scores}
            storage.write_json(f"{place}/{CHOICE}", choice)
        choice = storage.read_json(f"{place}/{CHOICE}")
        if choice["key"] != key:
            raise CareError(
                f"{run} was fine-tuned with other images or settings; repeat those, or choose a "
                "new run directory"
            )
        best = candidates[choice["best"]]
    for folder in folders:
        _remove(folder)
    return best


def _key(trial: Trial, labelled: Labelled, candidates: list[Candidate]) -> str:
    """A digest of all that decides the choice."""
    return storage.digest(
        [
            trial.encoder_digest,
            trial.train.digest,
            labelled.rows.tolist(),
            labelled.held_out,
            candidates,
            trial.size,
            trial.batch_size,
            trial.min_scale,
            trial.seed,
            trial.precision,
        ]
    )


def _try_all(
    trial: Trial,
    labelled: Labelled,
    recipe: Recipe,
    folders: list[str],
) -> list[tuple[float, float]]:
    """Top-1 and likelihood, the larger the better, of every candidate on the held-out labels.

    Raises:
        CareError: all candidates diverged.
    """
    held_out_rows, kept_rows = np.split(labelled.rows, [labelled.held_out])
    candidates = candidates_of(recipe)
    diverged = (-1.0, 0.0)  # worse than a candidate that is never right
    scores = [diverged] * len(candidates)
    for number, candidate in enumerate(candidates):
        with suppress(Diverged):
            right, likelihood = train_and_score(
                trial, kept_rows, candidate, folders[number], trial.train, held_out_rows
            )
            scores[number] = (accuracy_of(right).top1, likelihood)
    if max(scores) == diverged:
        raise CareError(
            f"fine-tuning diverged at all of the learning rates {recipe.lrs}; try lower ones"
        )
    return scores


def _remove(folder: str) -> None:
    """Remove a training, of a URL with its local copy."""
    shutil.rmtree(local_copy(folder), ignore_errors=True)
    for name in storage.listing(folder, deep=True):
        storage.remove(f"{folder}/{name}")


def describe(
    trial: Trial,
    labelled: Labelled,
    recipe: Recipe,
    candidate: Candidate,
    scores: Scores,
) -> Evaluation:
    """The record of a fine-tuning.

    Args:
        trial: what all trainings had in common.
        labelled: the images that were learned from.
        recipe: of which one candidate was chosen.
        candidate: that one.
        scores: of the images of val.
    """
    count = len(labelled.rows)
    candidates = len(candidates_of(recipe))
    choice = "as given"
    if candidates > 1:
        choice = f"the best of {candidates} on held-out ones"
    return Evaluation(
        task=f"{100 * count / len(trial.train):.0f} % of the labels",
        protocol=f"the whole network fine-tuned on {count} labelled images, crops of {trial.size} "
        f"px, batch {min(trial.batch_size, count)}, learning rates and epochs {choice}",
        measures=accuracy_of(scores.right)._asdict(),
        chosen={
            "lrs": (candidate.lr,),
            "head_lrs": (candidate.head_lr,),
            "epochs": (candidate.epochs,),
        },
        resampled=resampled_mean(scores.right[:, 0]),
    )
