"""How the authors of each objective train: optimizer, rates, views and targets, for ImageNet."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from care.errors import CareError
from care.train.optimizers import (
    LARC,
    LARS,
    OPTIMIZERS,
    SGD,
    AdamW,
    GroupedOptimizer,
    Schedule,
)
from care.train.views import VIEWS, View
from shards.image_size import ImageSize, Sides, image_size, sides

Views = tuple[View, ...]

# of the views that sides of small crops and patches belong to, pixels
PAPERS_SIZE = 224
# SwAV's small crops: their side, and share of the image's area
SMALL_SIZE = 96
SMALL_SCALE = (0.05, 0.14)
# BYOL's by the paper (Sec. 4.1), in proportion to which short protocols change the others
PAPERS_LR = 0.05
PAPERS_HIDDEN = 4096

_LARGE_CROPS = (0.2, 1.0)
_MOCO_V1 = View(scale=_LARGE_CROPS, jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1, blur_p=0)
_MOCO_V2 = View(scale=_LARGE_CROPS, jitter=(0.4, 0.4, 0.4, 0.1), blur_p=0.5)
_STRONG = View(jitter=(0.8, 0.8, 0.8, 0.2), blur_p=0.5)
# the patches of a jigsaw, of an image of 255 px; InfoMin's keep their colours
_PUZZLE = View(scale=(0.6, 1.0), jitter_p=0, blur_p=0, gray_p=0, size=255, patch=64)
_PIRL = View(jitter=(0.4, 0.4, 0.4, 0.2), jitter_p=1, blur_p=0, augment="photometric")
_INFOMIN = _STRONG._replace(scale=_LARGE_CROPS, augment="rand-augment")
_SWAV = _STRONG._replace(scale=(0.14, 1.0))
_SMALL = _SWAV._replace(scale=SMALL_SCALE, size=SMALL_SIZE)


@dataclass(frozen=True)
class Recipe:
    """How a method is trained, but for its length, its batch and its heads.

    The defaults are those of BYOL as the paper trains it (Sec. 4.1).

    Attributes:
        title: the method as people write it.
        optimizer: with its rate for 256 images; its warm-up is ``warmup_epochs``.
        warmup_epochs: of a linear warm-up, in which the rate rises.
        warmup_divisor: it takes at most one of so many epochs of a run.
        momentum: first momentum coefficient of the targets.
        momentum_rises: whether it goes to 1 over the run.
        views: distributions of the views, as they are for images of 224 px.
        source: where all this is from.
    """

    title: str
    optimizer: GroupedOptimizer = SGD()
    warmup_epochs: float = 10
    warmup_divisor: float = 10
    momentum: float = 0.99
    momentum_rises: bool = True
    views: Views = VIEWS
    source: str = "Sec. 4.1"


RECIPES = {
    "byol": Recipe("BYOL"),
    "simsiam": Recipe(
        "SimSiam",
        optimizer=SGD(schedule=Schedule(constant=("c.predictor",))),
        warmup_epochs=0,
        views=(_MOCO_V2, _MOCO_V2),
        source="Chen and He 2021; facebookresearch/simsiam",
    ),
    "simclr": Recipe(
        "SimCLR",
        optimizer=LARS(lr=0.3),
        views=(_STRONG, _STRONG),
        source="Chen et al. 2020, Sec. 2.1 and App. A",
    ),
    "moco-v1": Recipe(
        "MoCo v1",
        optimizer=SGD(lr=0.03, schedule=Schedule(drops=(0.6, 0.8))),
        warmup_epochs=0,
        momentum=0.999,
        momentum_rises=False,
        views=(_MOCO_V1, _MOCO_V1),
        source="He et al. 2020; facebookresearch/moco",
    ),
    "moco-v2": Recipe(
        "MoCo v2",
        optimizer=SGD(lr=0.03),
        warmup_epochs=0,
        momentum=0.999,
        momentum_rises=False,
        views=(_MOCO_V2, _MOCO_V2),
        source="Chen et al. 2020; facebookresearch/moco; both directions as in Chen and He 2021",
    ),
    "moco-v3": Recipe(
        "MoCo v3",
        optimizer=LARS(lr=0.6),
        views=tuple(view._replace(scale=_LARGE_CROPS) for view in VIEWS),
        source="Chen, Xie and He 2021; facebookresearch/moco-v3, ResNet-50 for 100 epochs",
    ),
    "swav": Recipe(
        "SwAV",
        optimizer=LARC(schedule=Schedule(start=1 / 16, final=0.001)),
        views=(_SWAV, _SWAV),
        source="Caron et al. 2020; facebookresearch/swav, two crops",
    ),
    "swav-256": Recipe(
        "SwAV of batch 256",
        optimizer=LARC(lr=0.6, schedule=Schedule(final=0.001)),
        warmup_epochs=0,
        views=(_SWAV, _SWAV, *[_SMALL] * 6),
        source="Caron et al. 2020; facebookresearch/swav, swav_200ep_bs256_pretrain",
    ),
    "barlow-twins": Recipe(
        "Barlow Twins",
        optimizer=LARS(lr=0.2, vector_lr=0.0048, schedule=Schedule(final=0.001)),
        source="Zbontar et al. 2021; facebookresearch/barlowtwins",
    ),
    "infomin": Recipe(
        "InfoMin",
        optimizer=SGD(lr=0.03, schedule=Schedule(final=0.001)),
        warmup_epochs=0,
        momentum=0.999,
        momentum_rises=False,
        views=(_INFOMIN, _INFOMIN, _PUZZLE),
        source="Tian et al. 2020; HobbitLong/PyContrast",
    ),
    "pirl": Recipe(
        "PIRL",
        optimizer=SGD(lr=0.03, weights_only=True, schedule=Schedule(final=0.001)),
        warmup_epochs=0,
        views=(_PIRL, _PIRL._replace(scale=(0.6, 1.0), size=255, patch=64)),
        source="Misra and van der Maaten 2020; facebookresearch/vissl",
    ),
    "pirl-pycontrast": Recipe(
        "PIRL of PyContrast",
        optimizer=SGD(lr=0.03, schedule=Schedule(drops=(0.6, 0.8))),
        warmup_epochs=0,
        views=(_MOCO_V1._replace(scale=View().scale), _PUZZLE),
        source="HobbitLong/PyContrast, of the detection rows of Tables 4 and 5",
    ),
    "cmc": Recipe(
        "CMC",
        # 0.03 at batch 128
        optimizer=SGD(lr=0.06, schedule=Schedule(drops=(1 / 2, 2 / 3, 5 / 6))),
        warmup_epochs=0,
        views=(View(scale=_LARGE_CROPS, jitter_p=0, blur_p=0, gray_p=0),),
        source="Tian, Krishnan and Isola 2020; HobbitLong/CMC",
    ),
    "byol-vit": Recipe(
        "BYOL of ViT",
        optimizer=AdamW(lr=1e-4),
        warmup_epochs=40,
        warmup_divisor=7.5,
        source="Chen, Xie and He 2021, Table 3",
    ),
    "moco-v3-vit": Recipe(
        "MoCo v3 of ViT",
        optimizer=AdamW(lr=1.5e-4),
        warmup_epochs=40,
        warmup_divisor=7.5,
        source="Chen, Xie and He 2021; facebookresearch/moco-v3, 300 epochs",
    ),
}


def recipe_for(objective: str) -> Recipe:
    """Find the recipe of an objective.

    Args:
        objective: key of ``RECIPES``, which are those of ``care.objectives.by_name.OBJECTIVES``.

    Raises:
        CareError: There is none of that name.
    """
    if objective not in RECIPES:
        names = ", ".join(RECIPES)
        raise CareError(f"wanted an objective of {names}; got {objective!r}")
    return RECIPES[objective]


def recipe_views(
    recipe: Recipe,
    *,
    size: ImageSize,
    t_stream: bool = True,
    small_crops: int | None = None,
    multiple: int = 1,
) -> Views:
    """Make the views of a training by a recipe.

    Args:
        recipe: of the objective.
        size: of the views that have none of their own, pixels; the sides of all others are in
            proportion to it, patches, which are square, to its shorter side.
        t_stream: whether there is one, which sees two views of an image: where the recipe has one,
            it is there twice.
        small_crops: behind the two views, SwAV's; by default as many as the recipe has.
        multiple: of which these sides are, pixels: ``care.vit.patch_side`` of the encoder.
    """
    views = recipe.views
    is_of_one = len(views) < 2 or views[1].patch is not None
    if t_stream and is_of_one:
        views = (views[0], *views)
    if small_crops is not None:
        small = views[0]._replace(scale=SMALL_SCALE, size=SMALL_SIZE)
        large = [view for view in views if not is_small_crop(view)]
        views = (*large, *[small] * small_crops)
    return tuple(_sized(view, size, multiple) for view in views)


def is_small_crop(view: View) -> bool:
    """Whether it is a crop of a size of its own, as SwAV's small ones."""
    return view.size is not None and view.patch is None


def _sized(view: View, size: ImageSize, multiple: int) -> View:
    """A view whose own sides are in proportion to the size of the others.

    What the encoder gets of it has a side that it takes; an image of patches has room for them.
    """
    if view.patch is not None:
        patch = _in_proportion(view.patch, sides(size).shorter, multiple)
        image = Sides(*(max(side, 3 * patch) for side in _scaled(view.size or PAPERS_SIZE, size)))
        return view._replace(size=image_size(image), patch=patch)
    if view.size is not None:
        return view._replace(size=image_size(_scaled(view.size, size, multiple)))
    return view


def _scaled(own_size: ImageSize, size: ImageSize, multiple: int = 1) -> Sides:
    """A view's own sides, which are for views of the paper's size, beside views of ``size``."""
    height, width = (
        _in_proportion(side, other, multiple)
        for side, other in zip(sides(own_size), sides(size), strict=True)
    )
    return Sides(height, width)


def _in_proportion(side: int, other: int, multiple: int = 1) -> int:
    return max(round(side * other / PAPERS_SIZE / multiple), 1) * multiple


def warmup_of(recipe: Recipe, epochs: float) -> float:
    """Epochs of the warm-up of a run.

    Args:
        recipe: of its objective.
        epochs: of the run.
    """
    return min(recipe.warmup_epochs, epochs / recipe.warmup_divisor)


def recipe_optimizer(
    recipe: Recipe,
    name: str | None = None,
    *,
    lr: float | None = None,
    weight_decay: float | None = None,
    warmup: int = 0,
    rate_scale: float = 1,
) -> GroupedOptimizer:
    """Make the optimizer of a recipe, or another one with the recipe's schedule.

    Args:
        recipe: of the objective.
        name: key of ``OPTIMIZERS``; by default the recipe's. Another one has its own defaults.
        lr: base learning rate for 256 images; by default the recipe's times ``rate_scale``. That of
            biases and norms, where they have one, changes in proportion.
        weight_decay: by default the recipe's.
        warmup: steps of the warm-up.
        rate_scale: of a short training.
    """
    optimizer = recipe.optimizer
    if name is not None and OPTIMIZERS[name] is not type(optimizer):
        optimizer = OPTIMIZERS[name](schedule=optimizer.schedule)
    of_weights = optimizer.lr * rate_scale if lr is None else lr
    of_vectors = optimizer.vector_lr
    if of_vectors is not None:
        of_vectors *= of_weights / optimizer.lr
    return replace(
        optimizer,
        lr=of_weights,
        vector_lr=of_vectors,
        warmup=warmup,
        weight_decay=optimizer.weight_decay if weight_decay is None else weight_decay,
    )


def make_optimizer(content: Mapping[str, Any]) -> GroupedOptimizer:
    """Make an optimizer of JSON.

    Args:
        content: its ``name``, a key of ``OPTIMIZERS``, and its fields by name.
    """
    fields = dict(content)
    kind = OPTIMIZERS[fields.pop("name")]
    schedule: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in fields.pop("schedule", {}).items()
    }
    return kind(**fields, schedule=Schedule(**schedule))
