"""The objects of an annotated image, as an encoder is shown it: where they are, and their boxes."""

from pathlib import Path
from typing import NamedTuple
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from care.evaluate.images import centre_crop, covering_sides
from care.evaluate.pictures import rasterise
from shards.boxes import BoxSet, Picture
from shards.image_size import ImageSize, Sides, sides

# folders of VOC's masks beside its JPEGImages; of each object by its own colour, or of each class
_VOC_MASKS = ("SegmentationObject", "SegmentationClass")
# in VOC's masks: what is no object, and the border around objects
_VOC_BACKGROUND, _VOC_VOID = 0, 255


class Objects(NamedTuple):
    """The objects of one image.

    Attributes:
        inside: of each pixel the share that is an object's, from 0 to 1.
        boxes: [n, 4]: left, top, right, bottom in pixels, the last two exclusive.
        has_masks: whether that comes from masks, and not from boxes.
    """

    inside: Float[Tensor, "h w"]
    boxes: Float[Tensor, "n 4"]
    has_masks: bool


class Framing(NamedTuple):
    """What of an image an encoder is shown.

    Attributes:
        size: of the centre crop, pixels; None: the whole image at its own size.
    """

    size: ImageSize | None

    def image(self, image: Image.Image) -> Image.Image:
        """What is shown of an image, RGB or gray."""
        return image if self.size is None else centre_crop(image, self.size)

    def boxes(self, boxes: NDArray[np.float32], size: tuple[int, int]) -> Float[Tensor, "n 4"]:
        """What is shown of boxes, those of which nothing is left out.

        Args:
            boxes: [n, 4] of an image, as ``Objects`` has them.
            size: its width and height.
        """
        resized = np.array(size)
        shown = np.array(size)
        if self.size is not None:
            width, height = size
            resized = np.array(covering_sides(Sides(height, width), self.size)[::-1])
            shown = np.array(sides(self.size)[::-1])
        scale = resized / np.array(size)
        # as torchvision cuts the centre out
        corner = np.round((resized - shown) / 2)
        corners = boxes.reshape(-1, 2, 2) * scale - corner
        clipped = corners.clip(0, shown).reshape(-1, 4)
        extents = clipped[:, 2:] - clipped[:, :2]
        return torch.from_numpy(clipped[(extents > 0).all(1)]).float()


def objects_of(data: BoxSet, number: int, framing: Framing) -> Objects:
    """The objects of a picture in its framing.

    Difficult objects (VOC) are objects, too; crowds (COCO) are not, since nobody counted them.

    Args:
        data: the annotated images.
        number: of the picture among them.
        framing: what of it is shown.

    Returns:
        Where they are by masks where the annotations have some: COCO's, or the palette images of
        VOC's devkit; else, and of objects without a mask, by their boxes.
    """
    picture = data.pictures[number]
    counted = np.flatnonzero(~picture.crowd)
    width, height = picture.size
    inside = np.zeros((height, width), np.bool_)
    masks = [picture.masks[index] for index in counted]
    palette = None
    if data.voc and data.shards is None and not any(masks):
        palette = _palette_mask(picture)
    if palette is not None:
        inside |= palette
    else:
        for index, mask in zip(counted, masks, strict=True):
            inside |= _object_mask(picture, int(index), mask)
    gray = framing.image(Image.fromarray(inside.astype(np.uint8) * 255))
    pixels = torch.from_numpy(np.array(gray)).float() / 255
    boxes = framing.boxes(picture.boxes[counted], picture.size)
    return Objects(pixels, boxes, has_masks=palette is not None or any(masks))


def _object_mask(picture: Picture, index: int, mask: object) -> NDArray[np.bool_]:
    """Where an object is: by its mask, or by its box where it has none."""
    width, height = picture.size
    if mask:
        return rasterise(mask, np.ones(2), (height, width)).astype(np.bool_)
    inside = np.zeros((height, width), np.bool_)
    x_min, y_min, x_max, y_max = picture.boxes[index]
    inside[int(y_min) : int(np.ceil(y_max)), int(x_min) : int(np.ceil(x_max))] = True
    return inside


def _palette_mask(picture: Picture) -> NDArray[np.bool_] | None:
    """Where VOC's devkit has objects in a picture, or None where it has no mask of it."""
    for folder in _VOC_MASKS:
        path = Path(picture.path.parent.parent, folder, f"{picture.path.stem}.png")
        if path.is_file():
            with Image.open(path) as image:
                values: NDArray[np.uint8] = np.array(image)
            return ~np.isin(values, (_VOC_BACKGROUND, _VOC_VOID))
    return None
