"""What of `care pretrain` its objective decides: heads, and by its recipe rates and views."""

import os
from dataclasses import dataclass, fields
from typing import Any
import torch
import typer
from care import Objective
from care.errors import CareError
from care.objectives.by_name import objective_for
from care.train.optimizers import OPTIMIZERS
from care.train.recipes import Recipe, recipe_for, recipe_optimizer, recipe_views
from care.vit import patch_side
from flows.recipes import OptimizerName, check_small_crops, describe_recipe
from shards.bounds import Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt
from shards.errors import Misuse
from shards.image_size import ImageSize
from shards.progress import say


@dataclass(frozen=True, kw_only=True)
class MethodChoice:
    """What is learned by, and what of its recipe is changed.

    Attributes:
        objective: of the C-stream: byol, simsiam, simclr, moco-v1, moco-v2, moco-v3, swav,
            swav-256, barlow-twins, infomin, pirl, pirl-pycontrast, of two encoders cmc, or of a vit
            encoder byol-vit or moco-v3-vit. Its recipe decides what is not asked for of the
            following (docs/objectives.md).
        t_stream: both streams, or the C-stream alone.
        small_crops: beside the two views of swav, of 96 px where these have 224; the paper has 6,
            as swav-256 by default, swav none.
        hidden: hidden width of projectors and predictors; by default the objective's, of byol 4096.
        queue: embeddings of earlier batches that moco-v1, moco-v2, infomin and swav keep; by
            default the paper's, in proportion to a small set, of swav none, of swav-256 3,840.
            Those of swav are kept from epoch 15 on.
        optimizer: by name, sgd, lars, larc or adamw, of byol sgd. LARS and LARC are timm's.
            Another one than the recipe's has its own lr and weight decay.
        lr: base learning rate for 256 images, scaled by batch_size / 256; of byol 0.05.
        weight_decay: of byol 0.0001, on every parameter, as in the released code.
        momentum: first momentum coefficient of the targets; of byol 0.99.
        momentum_rises: it goes to 1 over the run, as byol's, or stays, as that of moco-v1, moco-v2
            and infomin.
    """

    objective: str = "byol"
    t_stream: bool = True
    small_crops: NonNegativeInt | None = None
    hidden: PositiveInt | None = None
    queue: PositiveInt | None = None
    optimizer: OptimizerName | None = None
    lr: NonNegativeFloat | None = None
    weight_decay: NonNegativeFloat | None = None
    momentum: Fraction | None = None
    momentum_rises: bool | None = None

    @property
    def recipe(self) -> Recipe:
        """The recipe of the objective.

        Raises:
            typer.BadParameter: There is no such objective.
        """
        try:
            return recipe_for(self.objective)
        except CareError as error:
            raise typer.BadParameter(str(error), param_hint="--objective") from None


def take_choice(options: dict[str, Any]) -> MethodChoice:
    """Take the fields of the choice out of the options of the command."""
    return MethodChoice(**{field.name: options.pop(field.name) for field in fields(MethodChoice)})


def settings_by_recipe(
    choice: MethodChoice, warmup: int, *, size: ImageSize, encoder: str
) -> dict[str, Any]:
    """Settings of ``care.train.pretrain`` by a recipe, which is said, changed as asked for.

    Args:
        choice: what was asked for.
        warmup: steps of the warm-up.
        size: of the views, pixels.
        encoder: its name.
    """
    recipe = choice.recipe
    views = recipe_views(
        recipe,
        size=size,
        t_stream=choice.t_stream,
        small_crops=choice.small_crops,
        multiple=patch_side(encoder),
    )
    optimizer = recipe_optimizer(
        recipe,
        choice.optimizer,
        lr=choice.lr,
        weight_decay=choice.weight_decay,
        warmup=warmup,
    )
    by_recipe = {
        "optimizer": next(name for name, kind in OPTIMIZERS.items() if kind is type(optimizer)),
        "lr": optimizer.lr,
        "weight_decay": optimizer.weight_decay,
        "momentum": recipe.momentum,
        "momentum_rises": recipe.momentum_rises,
    }
    asked_for = {
        name: getattr(choice, name) for name in by_recipe if getattr(choice, name) is not None
    }
    if "RANK" not in os.environ:
        of_recipe = {name: by_recipe[name] for name in by_recipe if name not in asked_for}
        say(describe_recipe(choice.objective, of_recipe))
    settings = by_recipe | asked_for
    return {
        "optimizer": optimizer,
        "momentum": settings["momentum"],
        "momentum_rises": settings["momentum_rises"],
        "views": views,
    }


def fitted_objective(
    choice: MethodChoice, *, images: int, batch_size: int, parts: int
) -> Objective:
    """The objective that was asked for, fitted to a set.

    Args:
        choice: what was asked for.
        images: of the set.
        batch_size: images a step.
        parts: into which a process cuts its share of a batch.

    Raises:
        typer.BadParameter: It has no queue, or one that does not hold whole batches, or does not
            learn from small crops.
    """
    try:
        check_small_crops(choice.small_crops, [choice.objective])
    except Misuse as error:
        raise typer.BadParameter(str(error), param_hint="--small-crops") from None
    try:
        objective = objective_for(
            choice.objective,
            hidden=choice.hidden,
            images=images,
            batch_size=batch_size,
            queue=choice.queue,
        )
        with torch.random.fork_rng(devices=[]):
            objective.criterion().check(batch_size // parts)
    except CareError as error:
        raise typer.BadParameter(str(error), param_hint="--queue") from None
    return objective
