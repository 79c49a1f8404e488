"""Where maps point, and the one box that features tell apart: the pointing game and CorLoc.

Both are read off a network that saw no labels. The pointing game asks whether the maximum of a map
lies on an object (Zhang et al. 2016). CorLoc asks whether one box, grown around the cell of a
feature map that is like the fewest others, covers an object (LOST, Siméoni et al. 2021).
"""

from collections.abc import Sequence
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torchvision.ops import box_iou, masks_to_boxes
from shards.image_size import ImageSize, Sides, sides

# of an image's longer side, by which a point may miss: 15 px of the 500 of a VOC image, as in
# TorchRay
TOLERANCE = 0.03
# a side: a map with fewer cells has no room for a box in it, and the stage before is looked at
LEAST_CELLS = 6
# of all cells, those like the fewest others, that may join the seed: 100 of some 700 in LOST
EXPANSION = 1 / 7
LEAST_IOU = 0.5
# a map's pixels above this share of its maximum are its maximum, whatever rounding did to them
_ROUNDING = 1 - 1e-5


def near(masks: Bool[Tensor, "b h w"], tolerance: int) -> Bool[Tensor, "b h w"]:
    """The pixels at most ``tolerance`` pixels away from a mask."""
    offsets = torch.arange(-tolerance, tolerance + 1)
    disc = offsets[:, None] ** 2 + offsets**2 <= tolerance**2
    kernel = disc.float()[None, None]
    return nn.functional.conv2d(masks.float()[:, None], kernel, padding=tolerance)[:, 0] > 0.5


def pointing_hits(
    maps: Float[Tensor, "b h w"],
    targets: Bool[Tensor, "b h w"],
) -> Float[Tensor, " b"]:
    """The share of each map's maximum, a pixel or a plateau, that lies on its target."""
    maximum = maps >= maps.amax((1, 2), keepdim=True) * _ROUNDING
    return (maximum & targets).sum((1, 2)) / maximum.sum((1, 2))


def finest_meaningful(maps: dict[str, Float[Tensor, "b c h w"]]) -> Float[Tensor, "b c2 h2 w2"]:
    """The deepest of an encoder's maps that has ``LEAST_CELLS`` a side, else the finest."""
    by_depth = [*maps.values()]
    fine = [each for each in by_depth if min(each.shape[2:]) >= LEAST_CELLS]
    return fine[-1] if fine else by_depth[0]


def discovered_box(features: Float[Tensor, "c h w"], size: ImageSize | Sides) -> Float[Tensor, "4"]:
    """The box of the object that the cells of a feature map tell apart from the rest (LOST).

    Two cells are alike where the product of their features, less the mean of the map, is positive.
    The seed is the cell that is like the fewest others: objects are smaller than what surrounds
    them. It is joined by the cells that are like it among those like few others. The box holds the
    connected cells around the seed that are like the sum of these.

    Args:
        features: of one image.
        size: of the image, pixels.

    Returns:
        (left, top, right, bottom) in pixels, the last two exclusive.
    """
    _, height, width = features.shape
    cells = (features - features.mean()).flatten(1).T.double()
    products = cells @ cells.T
    alike = products > 0
    by_degree = alike.sum(1).argsort(stable=True)
    seed = by_degree[0]
    candidates = by_degree[: max(round(EXPANSION * len(cells)), 1)]
    joined = candidates[alike[seed, candidates]]
    region = (products[joined].sum(0) > 0).view(height, width)
    start = torch.zeros(height * width, dtype=torch.bool)
    start[seed] = True
    component = connected(region, start.view(height, width))
    image_height, image_width = sides(size)
    cell = torch.tensor([image_width / width, image_height / height] * 2)
    return _boxes(component[None])[0] * cell


def connected(region: Bool[Tensor, "h w"], start: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """``start``, and the cells of a region that sides of cells connect with it."""
    plus = torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])[None, None]
    component = start
    while True:
        touched = nn.functional.conv2d(component.float()[None, None], plus, padding=1)[0, 0] > 0.5
        grown = component | (touched & region)
        if grown.equal(component):
            return component
        component = grown


def fitting(
    discovered: Sequence[Float[Tensor, "4"]],
    boxes: Sequence[Float[Tensor, "_ 4"]],
) -> Float[Tensor, " b"]:
    """Whether each box has an IoU of at least ½ with that of one of its image's objects.

    Args:
        discovered: one box for each image.
        boxes: those of its objects, perhaps none.
    """
    fits = list[bool]()
    for box, of_image in zip(discovered, boxes, strict=True):
        fits.append(bool((box_iou(box[None], of_image) >= LEAST_IOU).any()))
    return torch.tensor(fits).float()


def _boxes(masks: Bool[Tensor, "n h w"]) -> Float[Tensor, "n 4"]:
    """(left, top, right, bottom) of each mask, the last two exclusive."""
    inclusive: Tensor = masks_to_boxes(masks)
    return inclusive + torch.tensor([0, 0, 1, 1])
