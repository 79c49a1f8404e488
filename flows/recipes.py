"""What protocols make of objectives' recipes: the inputs of stages that pre-train by them.

Protocols say how BYOL is trained, by plain SGD. Other objectives are trained by their own recipes
(``care.train.recipes``), whose rates and widths a protocol changes in proportion to BYOL's.
"""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Literal, NamedTuple, get_args
from flows.protocols import Protocol
from flows.result import Result
from shards.errors import Misuse
from shards.image_size import ImageSize

ObjectiveName = Literal[
    "byol",
    "simsiam",
    "simclr",
    "moco-v1",
    "moco-v2",
    "moco-v3",
    "swav",
    "swav-256",
    "barlow-twins",
    "infomin",
    "pirl",
    "pirl-pycontrast",
    "cmc",
    "byol-vit",
    "moco-v3-vit",
]
OptimizerName = Literal["sgd", "lars", "larc", "adamw"]
OBJECTIVE_NAMES: tuple[str, ...] = get_args(ObjectiveName)
BYOL = "byol"
# that learn from small crops beside two views
OF_SMALL_CROPS = ("swav", "swav-256")
PLAIN_OPTIMIZER = "sgd"


class RecipeChanges(NamedTuple):
    """What of a recipe was asked for otherwise; None: the recipe decides.

    Attributes:
        optimizer: its name.
        lr: base learning rate for 256 images.
        momentum: first momentum coefficient of the targets.
        hidden: hidden width of projectors and predictors.
        small_crops: beside the two views of an objective that learns from them.
    """

    optimizer: str | None = None
    lr: float | None = None
    momentum: float | None = None
    hidden: int | None = None
    small_crops: int | None = None


def check_objectives(names: tuple[str, ...]) -> None:
    """Refuse what is the name of no objective, and none at all.

    Raises:
        Misuse: It is so; the message lists the names that there are.
    """
    unknown = [name for name in names if name not in OBJECTIVE_NAMES]
    if unknown or not names:
        wanted = f"wanted objectives of {', '.join(OBJECTIVE_NAMES)}"
        raise Misuse(f"{wanted}; got {', '.join(unknown) or 'none'}")


def check_small_crops(count: int | None, objectives: Iterable[str]) -> None:
    """Refuse small crops where nobody learns from them.

    Args:
        count: that is asked for; None: as the recipes say.
        objectives: of all trainings.

    Raises:
        Misuse: It is so.
    """
    names = list(dict.fromkeys(objectives))
    if count and not {*names} & {*OF_SMALL_CROPS}:
        verb = "does" if len(names) == 1 else "do"
        raise Misuse(f"small crops are swav's, {', '.join(names)} {verb} not learn from them")


def title_of(objective: str) -> str:
    """An objective's name as people write it."""
    # imports torch, which takes seconds: only where somebody has named another objective
    from care.train.recipes import recipe_for

    return "BYOL" if objective == BYOL else recipe_for(objective).title


def warmup_steps(objective: str, protocol: Protocol, *, steps: int, epoch: int) -> int:
    """Steps in which the rate rises, where a recipe has a warm-up.

    Args:
        objective: of the C-stream.
        protocol: as it is declared.
        steps: of the training.
        epoch: steps of a pass over the images.

    Returns:
        The protocol's share of the steps, or the epochs that the objective's recipe says.
    """
    if objective == BYOL or not protocol.recipe_warmup:
        return steps // protocol.warmup_divisor
    # imports torch
    from care.train.recipes import recipe_for, warmup_of

    return round(epoch * warmup_of(recipe_for(objective), steps / epoch))


def recipe_inputs(
    objective: str,
    protocol: Protocol,
    changes: RecipeChanges,
    *,
    warmup: int,
    size: ImageSize,
    t_stream: bool,
    encoder: str,
) -> Result:
    """Inputs by which a stage pre-trains otherwise than the protocol says.

    Args:
        objective: of the C-stream.
        protocol: as it is declared, for BYOL and before anything else is asked for.
        changes: what was asked for.
        warmup: steps in which the rate rises, where the recipe has a warm-up.
        size: of the views, pixels.
        t_stream: whether there is one.
        encoder: its name.

    Returns:
        Of BYOL by plain SGD, nothing. Else what the recipe says: a rate is as many times the
        recipe's as the protocol's is BYOL's in the paper, and so is a head's hidden width; where a
        protocol bounds the targets' momentum, it is at most that.
    """
    if objective == BYOL and changes.optimizer in (None, PLAIN_OPTIMIZER):
        return {}
    # imports torch
    from care.objectives.by_name import OBJECTIVES
    from care.train.recipes import (
        PAPERS_HIDDEN,
        PAPERS_LR,
        recipe_for,
        recipe_optimizer,
        recipe_views,
    )
    from care.vit import patch_side

    recipe = recipe_for(objective)
    optimizer = recipe_optimizer(
        recipe,
        changes.optimizer,
        lr=changes.lr,
        warmup=warmup if recipe.warmup_epochs else 0,
        rate_scale=protocol.lr / PAPERS_LR,
    )
    multiple = patch_side(encoder)
    views = recipe_views(
        recipe,
        size=size,
        t_stream=t_stream,
        small_crops=changes.small_crops if objective in OF_SMALL_CROPS else None,
        multiple=multiple,
    )
    hidden = round(OBJECTIVES[objective].hidden * protocol.hidden / PAPERS_HIDDEN)
    momentum = min(recipe.momentum, protocol.momentum_limit)
    inputs: Result = {
        "objective": objective,
        "hidden": changes.hidden or max(hidden, 1),
        "momentum": momentum if changes.momentum is None else changes.momentum,
        "momentum_rises": recipe.momentum_rises,
        "views": [_view_fields(view, protocol.views) for view in views],
    }
    return inputs | _optimizer_inputs(optimizer)


def describe_recipe(objective: str, settings: Result) -> str:
    """What a recipe decides, in a line.

    Args:
        objective: of the C-stream.
        settings: those that it decides: of "optimizer", its name or as JSON, "lr", "weight_decay",
            "warmup" in steps, "momentum" and "momentum_rises" what there is.
    """
    optimizer = settings.get("optimizer")
    if isinstance(optimizer, dict):
        optimizer = optimizer["name"]
    forms = {
        "lr": "lr {:g} for 256 images",
        "weight_decay": "weight decay {:g}",
        "warmup": "{:,} steps of warm-up",
        "momentum": "target's momentum {:g}",
    }
    parts = [optimizer] if optimizer else []
    parts += [form.format(settings[name]) for name, form in forms.items() if name in settings]
    if settings.get("momentum_rises") is False:
        parts.append("which stays")
    return f"by the recipe of {title_of(objective)}: {', '.join([*parts, 'its views'])}"


def _view_fields(view: Any, changes: Result) -> Result:
    """The fields of a view as JSON, changed by the protocol's.

    Patches stay as they are, small crops small, and what a view never does no protocol makes it do.
    """
    from care.train.recipes import is_small_crop

    fields: Result = view._asdict()
    if view.patch is not None:
        return fields
    if is_small_crop(view):
        changes = {name: value for name, value in changes.items() if name != "scale"}
    return fields | {
        name: value
        for name, value in changes.items()
        if not (name.endswith("_p") and fields[name] == 0)
    }


def _optimizer_inputs(optimizer: Any) -> Result:
    """An optimizer as JSON: its numbers as for plain SGD, and what else there is to say of it."""
    from care.train.optimizers import OPTIMIZERS, optimizer_settings

    fields = asdict(optimizer)
    numbers = {name: fields.pop(name) for name in ("lr", "warmup", "weight_decay")}
    if "optimizer" not in optimizer_settings(optimizer):
        return numbers
    names = {kind: name for name, kind in OPTIMIZERS.items()}
    return {**numbers, "optimizer": {"name": names[type(optimizer)], **fields}}
