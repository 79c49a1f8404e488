"""How much of an encoder's attention lies inside the objects of images, whose masks are known."""

from collections.abc import Sequence
from typing import NamedTuple
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from care.encoders import Encoder
from care.evaluate.attention_maps import attention_map
from care.evaluate.images import centre_crop
from care.train.photometrics import normalize
from shards.image_size import ImageSize

# images that are encoded together
BATCH = 256


class AttentionShare(NamedTuple):
    """Means over images, in per cent.

    Attributes:
        inside: of a map's energy, how much is in the masks.
        area: of the pixels, how many are: what a map without preference would have inside.
    """

    inside: float
    area: float


class AttentionShares(NamedTuple):
    """By image, from 0 to 1 and on the CPU, what ``AttentionShare`` has the means of.

    Attributes:
        inside: of the map's energy, how much is in the mask.
        area: of the pixels, how many are.
    """

    inside: Float[Tensor, " n"]
    area: Float[Tensor, " n"]


def attention_share(
    encoder: Encoder,
    images: Sequence[Image.Image],
    masks: Sequence[NDArray[np.bool_]],
    *,
    size: ImageSize,
) -> AttentionShare:
    """Measure how much of an encoder's attention lies inside the objects of images.

    Args:
        encoder: as ``attention_shares``.
        images: as ``attention_shares``.
        masks: as ``attention_shares``.
        size: as ``attention_shares``.

    Returns:
        Means over the images.
    """
    shares = attention_shares(encoder, images, masks, size=size)
    inside, area = (100 * float(by_image.mean()) for by_image in shares)
    return AttentionShare(inside, area)


def attention_shares(
    encoder: Encoder,
    images: Sequence[Image.Image],
    masks: Sequence[NDArray[np.bool_]],
    *,
    size: ImageSize,
) -> AttentionShares:
    """Measure how much of each image's ``attention_map`` at the last stage is inside its mask.

    Args:
        encoder: used on the device that it is on, in eval mode.
        images: RGB.
        masks: of the images' objects, [h, w]; centre-cropped as the images are.
        size: of the crops, pixels.

    Returns:
        Shares of each image.
    """
    grays = [Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks]
    inside = cropped_pixels(grays, size)
    device = next(encoder.parameters()).device
    shares = list[Tensor]()
    batches = torch.split(cropped_pixels(images, size), BATCH)
    for pixels, mask in zip(batches, torch.split(inside, BATCH), strict=True):
        maps = attention_map(encoder, normalize(pixels.to(device)))
        shares.append(energy_inside(maps, mask.to(maps)).cpu())
    return AttentionShares(torch.cat(shares), inside.mean((1, 2)))


def energy_inside(
    maps: Float[Tensor, "b h w"], masks: Float[Tensor, "b h w"]
) -> Float[Tensor, " b"]:
    """The share of each map's energy that is in its mask.

    Args:
        maps: of mean 1, so that the mean in the mask is its energy there by all of its energy.
        masks: of each pixel the share that is in the mask, from 0 to 1.
    """
    return (maps * masks).mean((1, 2))


def cropped_pixels(images: Sequence[Image.Image], size: ImageSize) -> Tensor:
    """Centre crops from 0 to 1: [n, 3, h, w] of RGB, [n, h, w] of gray images.

    Args:
        images: all of one kind.
        size: of the crops, pixels.
    """
    crops = [np.asarray(centre_crop(image, size)) for image in images]
    pixels: NDArray[np.uint8] = np.stack(crops)
    if pixels.ndim == 4:
        pixels = pixels.transpose(0, 3, 1, 2)
    return torch.from_numpy(pixels).float() / 255
