"""Which candidate of a recipe is best on held-out labels; the choice is remembered in the run.

Val has no part in it: the images that choose are among the labelled ones of train.
"""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
import numpy as np
import shards
from care.errors import CareError, Diverged
from care.evaluate.images import Rows
from care.evaluate.recipes import Candidate, Recipe, candidates_of
from care.evaluate.trial import Plan, train_and_score
from care.train.mirror import local_copy
from shards import storage
from shards.order import permutation
from shards.progress import say

CHOICE = "chosen.json"  # which candidate the held-out labels chose


class Labelled(NamedTuple):
    """The images to learn from, in a random order.

    Attributes:
        rows: their numbers in train.
        held_out: how many of them, the first ones, choose the candidate.
    """

    rows: Rows
    held_out: int


def shuffle_labelled(
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
    plan: Plan,
    labelled: Labelled,
    recipe: Recipe,
    run: str | Path,
) -> Candidate:
    """The candidate that is best on the held-out labels when trained on the others.

    The choice is remembered in the run directory; then the candidates' trainings are removed.

    Args:
        plan: what all trainings have in common.
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
        key = _key(plan, labelled, candidates)
        if CHOICE not in storage.listing(place):
            scores = _try_all(plan, labelled, recipe, folders)
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


def _key(plan: Plan, labelled: Labelled, candidates: list[Candidate]) -> str:
    """A digest of all that decides the choice."""
    return storage.digest(
        [
            plan.encoder_digest,
            plan.train.digest,
            labelled.rows.tolist(),
            labelled.held_out,
            candidates,
            plan.size,
            plan.batch_size,
            plan.min_scale,
            plan.seed,
            plan.precision,
        ]
    )


def _try_all(
    plan: Plan,
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
    say(
        f"choosing learning rates and epochs: {len(candidates)} candidates learn from "
        f"{len(kept_rows)} labelled images of train, {len(held_out_rows)} others tell the best"
    )
    diverged = (-1.0, 0.0)  # worse than a candidate that is never right
    scores = [diverged] * len(candidates)
    for number, candidate in enumerate(candidates):
        with suppress(Diverged):
            result = train_and_score(
                plan, kept_rows, candidate, folders[number], plan.train, held_out_rows
            )
            scores[number] = (result.top1, result.likelihood)
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
