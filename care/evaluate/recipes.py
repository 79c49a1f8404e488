"""Recipes of fine-tuning on few labels, as published, and the candidates that they make."""

import itertools
from dataclasses import dataclass
from typing import NamedTuple
from shards.errors import Misuse


@dataclass(frozen=True)
class Recipe:
    """What fine-tuning chooses from, with learning rates for 256 images.

    Attributes:
        lrs: learning rates of the encoder.
        head_lrs: those of the head, one for each of the encoder's.
        epochs: passes over the labelled images.
        batch_size: images a step.
    """

    lrs: tuple[float, ...]
    head_lrs: tuple[float, ...]
    epochs: tuple[int, ...]
    batch_size: int


class Candidate(NamedTuple):
    """One of the trainings of a recipe.

    Attributes:
        lr: learning rate of the encoder, for 256 images.
        head_lr: that of the head.
        epochs: passes over the labelled images.
    """

    lr: float
    head_lr: float
    epochs: int


# SwAV's rates for 1 % and for 10 % of ImageNet (Caron et al. 2020)
SWAV = Recipe(lrs=(0.02, 0.01), head_lrs=(5.0, 0.2), epochs=(20,), batch_size=256)
# for 1 % (Zbontar et al. 2021)
BARLOW_TWINS = Recipe(lrs=(0.005,), head_lrs=(0.5,), epochs=(20,), batch_size=256)
# BYOL's 0.005, 0.01, 0.02, 0.05 and 0.1 are for 1,024 images (Grill et al. 2020)
_BYOL_LRS = (0.00125, 0.0025, 0.005, 0.0125, 0.025)
BYOL_RECIPE = Recipe(lrs=_BYOL_LRS, head_lrs=_BYOL_LRS, epochs=(30, 50), batch_size=1024)

RECIPES = {"swav": SWAV, "barlow-twins": BARLOW_TWINS, "byol": BYOL_RECIPE}


def changed_recipe(
    published: Recipe,
    *,
    lrs: tuple[float, ...] | None,
    head_lrs: tuple[float, ...] | None,
    epochs: tuple[int, ...] | None,
    batch_size: int | None,
) -> Recipe:
    """A published recipe with what is not None in its place.

    Where there are no ``head_lrs``, ``lrs`` are the head's, too.

    Raises:
        Misuse: encoder and head have different numbers of learning rates.
    """
    recipe = Recipe(
        lrs=lrs or published.lrs,
        head_lrs=head_lrs or lrs or published.head_lrs,
        epochs=epochs or published.epochs,
        batch_size=batch_size or published.batch_size,
    )
    if len(recipe.lrs) != len(recipe.head_lrs):
        raise Misuse(
            f"wanted one head rate for each of the {len(recipe.lrs)} learning rates, got "
            f"{len(recipe.head_lrs)}; give as many of both"
        )
    return recipe


def candidates_of(recipe: Recipe) -> list[Candidate]:
    """Each pair of learning rates with each number of epochs."""
    pairs = zip(recipe.lrs, recipe.head_lrs, strict=True)
    return [
        Candidate(lr, head_lr, epochs)
        for (lr, head_lr), epochs in itertools.product(pairs, recipe.epochs)
    ]
