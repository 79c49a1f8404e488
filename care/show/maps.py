"""Where an encoder looks: Grad-CAM without labels, and pictures of it (Fig. 4)."""

from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn
from care.encoded import evaluating
from care.encoders import Encoder
from care.errors import CareError
from care.evaluate.images import centre_crop
from care.image_size import ImageSize, Sides, image_size, sides
from care.train.photometrics import normalize

# a map's value in full colour, where 1 is the average pixel; one for all encoders, as in Fig. 4
SCALE = 2.5
# from 0 to ``SCALE``, evenly spaced: blue, light blue, green, yellow, red
COLOURS = np.asarray(
    [(20, 20, 80), (30, 110, 200), (60, 190, 120), (250, 210, 50), (220, 30, 30)], dtype=np.float32
)
# images that are encoded together
BATCH = 256
# px of a sheet: left of the pictures for the rows' names, and between pictures
SHEET_MARGIN, SHEET_GAP = 84, 4


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


def attention_map(
    encoder: Encoder, images: Float[Tensor, "b 3 h w"], *, stage: str | None = None
) -> Float[Tensor, "b h w"]:
    """Compute the Grad-CAM of a score without labels: ½‖pooled last map‖².

    Args:
        encoder: used in eval mode, left in the mode that it was in.
        images: normalised, on the encoder's device.
        stage: name of one of ``encoder.maps``, such as layer3; by default the last.

    Returns:
        A map for each image, of the image's size (bilinear) and of mean 1; 0 where the gradient is.

    Raises:
        CareError: The encoder has no such stage.

    Source: Sec. 4.3 and Fig. 4 for the idea; Selvaraju et al. 2017 for Grad-CAM.
    """
    with evaluating(encoder), torch.enable_grad():
        maps = encoder.maps(images.detach().requires_grad_())
        last_map = list(maps.values())[-1]
        if stage and stage not in maps:
            raise CareError(f"this encoder has no stage {stage!r}; choose one of {', '.join(maps)}")
        stage_map = maps[stage] if stage else last_map
        score = last_map.mean((2, 3)).square().sum() / 2
        (gradient,) = torch.autograd.grad(score, stage_map)
    weights = gradient.mean((2, 3), keepdim=True)
    cam = (weights * stage_map.detach()).sum(1, keepdim=True).relu()
    cam = nn.functional.interpolate(cam, images.shape[2:], mode="bilinear")[:, 0]
    return cam / cam.mean((1, 2), keepdim=True).clamp_min(1e-12)


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
    inside = _pixels(grays, size)
    device = next(encoder.parameters()).device
    shares = list[Tensor]()
    batches = torch.split(_pixels(images, size), BATCH)
    for pixels, mask in zip(batches, torch.split(inside, BATCH), strict=True):
        maps = attention_map(encoder, normalize(pixels.to(device)))
        # a map's mean is 1: this is its energy in the mask by all of its energy
        shares.append((maps * mask.to(maps)).mean((1, 2)).cpu())
    return AttentionShares(torch.cat(shares), inside.mean((1, 2)))


def overlay(image: Image.Image, cam: Float[Tensor, "h w"], *, scale: float = SCALE) -> Image.Image:
    """Cover an image by half with its map in colour.

    Args:
        image: RGB, of the map's size.
        cam: map of the image.
        scale: value of the map that is red; 0 is blue.
    """
    position = (cam.detach().cpu().numpy() / scale).clip(0, 1) * (len(COLOURS) - 1)
    stops = range(len(COLOURS))
    channels = [np.interp(position, stops, COLOURS[:, channel]) for channel in range(3)]
    mixed = (np.asarray(image, dtype=np.float32) + np.stack(channels, -1)) / 2
    return Image.fromarray(mixed.astype(np.uint8))


def sheet(
    images: Sequence[Image.Image], encoders: dict[str, Encoder], *, size: ImageSize, cell: int = 128
) -> bytes:
    """Draw images in a row, and below them a row of their maps for each encoder.

    Args:
        images: RGB, of any size.
        encoders: on the CPU, by the name that is shown beside their row.
        size: of the encoders' input, pixels.
        cell: shorter side of a picture, pixels.

    Returns:
        A PNG.
    """
    batch = normalize(_pixels(images, size))
    height, width = sides(size)
    shown = Sides(cell * height // min(height, width), cell * width // min(height, width))
    cropped = [centre_crop(image, image_size(shown)) for image in images]
    rows = {"image": cropped}
    for name, encoder in encoders.items():
        cams = attention_map(encoder, batch)[:, None]
        cams = nn.functional.interpolate(cams, shown, mode="bilinear")[:, 0]
        rows[name] = [overlay(image, cam) for image, cam in zip(cropped, cams, strict=True)]
    x_pitch = shown.width + SHEET_GAP
    y_pitch = shown.height + SHEET_GAP
    canvas = Image.new("RGB", (SHEET_MARGIN + len(images) * x_pitch, len(rows) * y_pitch), "white")
    draw = ImageDraw.Draw(canvas)
    for y, (name, pictures) in enumerate(rows.items()):
        text = name.replace(" ", "\n")
        draw.text(
            (4, y * y_pitch + shown.height // 2), text, fill="black", anchor="lm", font_size=14
        )
        for x, picture in enumerate(pictures):
            canvas.paste(picture, (SHEET_MARGIN + x * x_pitch, y * y_pitch))
    data = BytesIO()
    canvas.save(data, "PNG")
    return data.getvalue()


def _pixels(images: Sequence[Image.Image], size: ImageSize) -> Tensor:
    """Centre crops from 0 to 1: [n, 3, h, w] of RGB, [n, h, w] of gray images."""
    crops = [np.asarray(centre_crop(image, size)) for image in images]
    pixels: NDArray[np.uint8] = np.stack(crops)
    if pixels.ndim == 4:
        pixels = pixels.transpose(0, 3, 1, 2)
    return torch.from_numpy(pixels).float() / 255
