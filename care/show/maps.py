"""Pictures of where encoders look: maps over their images, in one colour scale (Fig. 4)."""

from collections.abc import Iterable, Mapping, Sequence
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from care.attention import Transformer
from care.encoders import Encoder
from care.evaluate.attention_maps import attention_map
from care.evaluate.images import centre_crop
from care.evaluate.transformer_maps import Attending, transformer_map
from care.show.map_sheet import SCALE, coloured, draw_sheet
from care.train.photometrics import normalize
from shards.image_size import ImageSize, image_size, sides

# how each kind of map came about, in words
KINDS = {
    "grad-cam": "Grad-CAM of the label-free score ½‖features‖² at {stage}",
    "eigen-cam": "EigenCAM: the first principal component of {stage}",
    "norm": "norm of the activations of {stage}",
    "class": "Grad-CAM at {stage} of the class below each picture, by a linear layer on features",
    "t-stream": "what the T-stream attends to: {attention}",
}
# what a sheet's file of words is called, beside the sheet ``maps.png``
WORDS_FILE = "maps.json"


def caption_of(abouts: Sequence[str], *, scale: float = SCALE) -> str:
    """How the maps of a sheet are read.

    Args:
        abouts: how they came about, see ``KINDS``; what is said twice counts once.
        scale: value of a map that is red.
    """
    return (
        f"{'; '.join(dict.fromkeys(abouts))}. One colour scale for all rows: blue 0, red {scale:g} "
        "times the average pixel."
    )


def sheet_caption(transformers: Iterable[Transformer] = ()) -> str:
    """How a ``sheet`` is read.

    Args:
        transformers: of whose T-streams it has a row.
    """
    abouts = [KINDS["grad-cam"].format(stage="the last stage")]
    for transformer in transformers:
        abouts.append(KINDS["t-stream"].format(attention=Attending().describe(transformer)))
    return caption_of(abouts)


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


def overlay(image: Image.Image, cam: Float[Tensor, "h w"], *, scale: float = SCALE) -> Image.Image:
    """Cover an image by half with its map in colour.

    Args:
        image: RGB, of the map's size.
        cam: map of the image.
        scale: value of the map that is red; 0 is blue.
    """
    colours = coloured(cam.detach().cpu().numpy() / scale)
    mixed = (np.asarray(image.convert("RGB"), dtype=np.float32) + colours) / 2
    return Image.fromarray(mixed.astype(np.uint8))


def overlays(
    images: Sequence[Image.Image], cams: Float[Tensor, "b h w"], *, scale: float = SCALE
) -> list[Image.Image]:
    """Cover images with their maps, which are stretched (bilinear) to the images' size.

    Args:
        images: RGB, all of one size.
        cams: their maps, of any size.
        scale: as of ``overlay``.
    """
    width, height = images[0].size
    cams = nn.functional.interpolate(cams[:, None], (height, width), mode="bilinear")[:, 0]
    return [overlay(image, cam, scale=scale) for image, cam in zip(images, cams, strict=True)]


def picture_size(size: ImageSize, cell: int) -> ImageSize:
    """The size of a picture of the shape of an encoder's input.

    Args:
        size: of the input, pixels.
        cell: shorter side of the picture, pixels.
    """
    height, width = sides(size)
    shorter = min(height, width)
    return image_size((cell * height // shorter, cell * width // shorter))


def sheet(
    images: Sequence[Image.Image],
    encoders: Mapping[str, Encoder],
    *,
    size: ImageSize,
    cell: int = 128,
    transformers: Mapping[str, Transformer] | None = None,
) -> bytes:
    """Draw images in a row, and below them a row of their maps for each encoder.

    Args:
        images: RGB, of any size.
        encoders: on the CPU, by the name that is shown beside their row.
        size: of the encoders' input, pixels.
        cell: shorter side of a picture, pixels.
        transformers: those of encoders' T-streams, by the name of the encoder; of each there is
            another row, of what its last block attends to.

    Returns:
        A PNG.
    """
    batch = normalize(cropped_pixels(images, size))
    shown = picture_size(size, cell)
    cropped = [centre_crop(image, shown) for image in images]
    rows = {"image": cropped}
    for name, encoder in encoders.items():
        rows[name] = overlays(cropped, attention_map(encoder, batch))
        transformer = (transformers or {}).get(name)
        if transformer is not None:
            cams = transformer_map(encoder, transformer, batch)
            rows[f"{name} T-stream"] = overlays(cropped, cams)
    return draw_sheet(rows)
