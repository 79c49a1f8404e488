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
from care.train.photometrics import normalize

SCALE = 2.5  # map value shown in full colour; 1 is the average pixel; one scale for all encoders, as in Fig. 4
COLOURS = np.asarray(
    [(20, 20, 80), (30, 110, 200), (60, 190, 120), (250, 210, 50), (220, 30, 30)], dtype=np.float32
)


def attention_map(
    encoder: Encoder, images: Float[Tensor, "b 3 h w"], *, stage: str | None = None
) -> Float[Tensor, "b h w"]:
    """Grad-CAM of ½‖pooled last map‖² at a ``stage`` of ``encoder.maps``, else the last, bilinear, of mean 1; none such: ``CareError``."""
    with evaluating(encoder), torch.enable_grad():
        maps = encoder.maps(images.detach().requires_grad_())
        at, last = maps.get(stage or [*maps][-1]), [*maps.values()][-1]
        if at is None:
            raise CareError(f"this encoder has no stage {stage!r}; choose one of {', '.join(maps)}")
        (gradient,) = torch.autograd.grad(last.mean((2, 3)).square().sum() / 2, at)
    cam = (gradient.mean((2, 3), keepdim=True) * at.detach()).sum(1, keepdim=True).relu()
    cam = nn.functional.interpolate(cam, images.shape[2:], mode="bilinear")[:, 0]
    return cam / cam.mean((1, 2), keepdim=True).clamp_min(1e-12)


class Share(NamedTuple):
    """Per cent in the masks, means over images: of a map's energy, and of the pixels, what a uniform map would have ``inside``."""

    inside: float
    area: float


def attention_share(
    encoder: Encoder,
    images: Sequence[Image.Image],
    masks: Sequence[NDArray[np.bool_]],
    *,
    size: int,
) -> Share:
    """How much of ``attention_map`` at the last stage lies inside masks [h, w] of the images' objects, all centre-cropped alike."""
    shares, areas = attention_shares(encoder, images, masks, size=size)
    return Share(100 * float(shares.mean()), 100 * float(areas.mean()))


class Shares(NamedTuple):
    """By image, from 0 to 1, what ``Share`` has the means of, on the CPU."""

    inside: Float[Tensor, " n"]
    area: Float[Tensor, " n"]


def attention_shares(
    encoder: Encoder,
    images: Sequence[Image.Image],
    masks: Sequence[NDArray[np.bool_]],
    *,
    size: int,
) -> Shares:
    """How much of each image's ``attention_map`` at the last stage lies inside its mask.

    Args:
        encoder: used on the device it is on, in eval mode.
        images: RGB.
        masks: of the images' objects, [h, w]; centre-cropped as the images are.
        size: side of the crops, pixels.
    """
    inside = _pixels([Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks], size)
    batches = zip(torch.split(_pixels(images, size), 256), torch.split(inside, 256), strict=True)
    device, shares = next(encoder.parameters()).device, list[Tensor]()
    for pixels, mask in batches:
        maps = attention_map(encoder, normalize(pixels.to(device)))
        shares.append((maps * mask.to(maps)).mean((1, 2)).cpu())  # a map's mean is 1
    return Shares(torch.cat(shares), inside.mean((1, 2)))


def overlay(image: Image.Image, cam: Float[Tensor, "h w"], *, scale: float = SCALE) -> Image.Image:
    """The image, half covered by its map in colour from blue (0) to red (``scale``)."""
    position = (cam.detach().cpu().numpy() / scale).clip(0, 1) * (len(COLOURS) - 1)
    colour = np.stack(
        [np.interp(position, range(len(COLOURS)), COLOURS[:, n]) for n in range(3)], -1
    )
    return Image.fromarray(((np.asarray(image, dtype=np.float32) + colour) / 2).astype(np.uint8))


def sheet(
    images: Sequence[Image.Image], encoders: dict[str, Encoder], *, size: int, cell: int = 128
) -> bytes:
    """A PNG: the RGB images in a row, a row of maps for each encoder; px a side: ``size`` of the encoders' input, ``cell`` of a picture."""
    batch, shown = normalize(_pixels(images, size)), [centre_crop(image, cell) for image in images]
    rows = {"image": shown}
    for name, encoder in encoders.items():
        cams = nn.functional.interpolate(
            attention_map(encoder, batch)[:, None], (cell, cell), mode="bilinear"
        )[:, 0]
        rows[name] = [overlay(image, cam) for image, cam in zip(shown, cams, strict=True)]
    margin, gap = 84, 4
    picture = Image.new(
        "RGB", (margin + len(shown) * (cell + gap), len(rows) * (cell + gap)), "white"
    )
    for y, (name, row) in enumerate(rows.items()):
        ImageDraw.Draw(picture).text(
            (4, y * (cell + gap) + cell // 2),
            name.replace(" ", "\n"),
            fill="black",
            anchor="lm",
            font_size=14,
        )
        for x, part in enumerate(row):
            picture.paste(part, (margin + x * (cell + gap), y * (cell + gap)))
    picture.save(data := BytesIO(), "PNG")
    return data.getvalue()


def _pixels(
    images: Sequence[Image.Image], size: int
) -> Tensor:  # [n, 3, size, size] of RGB, [n, size, size] of gray; 0…1
    cropped: NDArray[np.uint8] = np.stack(
        [np.asarray(centre_crop(image, size)) for image in images]
    )
    return (
        torch.from_numpy(cropped if cropped.ndim == 3 else cropped.transpose(0, 3, 1, 2)).float()
        / 255
    )
