"""How well maps and boxes fit the objects of images, beside those without preference."""

from collections.abc import Sequence
from typing import NamedTuple
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from care.evaluate.localisation import TOLERANCE, fitting, near, pointing_hits
from care.evaluate.objects import Objects

# of a map's energy, in its highest pixels: DINO's share
TOP_MASS = 0.6


class ObjectFigures(NamedTuple):
    """What was measured, of images [n] each, from 0 to 1; of a map without preference, too.

    Attributes:
        inside: of the map's energy, how much is inside the objects.
        area: of the pixels, how many are.
        pointing: whether the map's maximum lies on an object, or close to it.
        pointing_chance: the same of a random pixel.
        jaccard: of the pixels with the highest ``TOP_MASS`` of the map and the objects', the
            intersection over the union.
        jaccard_chance: the same of random pixels, as many as a flat map has there.
        corloc: whether the one box that is discovered fits an object's.
        corloc_chance: the same of a box around all that is shown.
    """

    inside: Float[Tensor, " n"]
    area: Float[Tensor, " n"]
    pointing: Float[Tensor, " n"]
    pointing_chance: Float[Tensor, " n"]
    jaccard: Float[Tensor, " n"]
    jaccard_chance: Float[Tensor, " n"]
    corloc: Float[Tensor, " n"]
    corloc_chance: Float[Tensor, " n"]


def figures_of(
    maps: Float[Tensor, "b h w"],
    discovered: Sequence[Float[Tensor, "4"]],
    objects: Sequence[Objects],
) -> ObjectFigures:
    """Compare maps and boxes with objects.

    Args:
        maps: of mean 1, on the CPU.
        discovered: a box for each image.
        objects: of each image.
    """
    inside = torch.stack([of_image.inside for of_image in objects])
    masks = inside > 0.5
    height, width = maps.shape[1:]
    targets = near(masks, round(TOLERANCE * max(height, width)))
    area = masks.float().mean((1, 2))
    boxes = [of_image.boxes for of_image in objects]
    frame = torch.tensor([0.0, 0.0, width, height])
    return ObjectFigures(
        inside=energy_inside(maps, inside),
        area=inside.mean((1, 2)),
        pointing=pointing_hits(maps, targets),
        pointing_chance=targets.float().mean((1, 2)),
        jaccard=jaccard(top_mass(maps), masks),
        jaccard_chance=TOP_MASS * area / (TOP_MASS + area - TOP_MASS * area),
        corloc=fitting(discovered, boxes),
        corloc_chance=fitting([frame] * len(objects), boxes),
    )


def energy_inside(
    maps: Float[Tensor, "b h w"], masks: Float[Tensor, "b h w"]
) -> Float[Tensor, " b"]:
    """The share of each map's energy that is in its mask.

    Args:
        maps: of mean 1, so that the mean in the mask is its energy there by all of its energy.
        masks: of each pixel the share that is in the mask, from 0 to 1.
    """
    return (maps * masks).mean((1, 2))


def top_mass(maps: Float[Tensor, "b h w"], share: float = TOP_MASS) -> Bool[Tensor, "b h w"]:
    """The fewest pixels of each map, highest first, that hold a share of its energy.

    Args:
        maps: not negative.
        share: of each map's energy.

    Returns:
        Whether each pixel is one of them.
    """
    values, order = maps.flatten(1).double().sort(dim=1, descending=True, stable=True)
    before = values.cumsum(1) - values
    kept = before < share * values.sum(1, keepdim=True)
    return torch.zeros_like(kept).scatter(1, order, kept).view_as(maps)


def jaccard(first: Bool[Tensor, "b h w"], second: Bool[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    """The intersection over the union of masks, pair by pair; of two that are empty 0."""
    union = (first | second).sum((1, 2))
    return (first & second).sum((1, 2)) / union.clamp_min(1)
