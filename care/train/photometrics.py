"""What a view does to pixels: the crop of one image, the colours of a batch, on its device."""

import operator
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from care.train.devices import widest_float
from care.train.operation_pixels import (
    PixelOperation,
    apply_operations,
    change_contrast,
    change_saturation,
    change_some,
    luma,
)
from care.train.views import ViewParameters
from shards.image_size import ImageSize, sides

# ImageNet's, of RGB in 0…1
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# numbers that a CPU colours at a time, a megabyte: one view of 224 px, 37 of 48 px; more leave its
# cache, fewer are all overhead
CACHED = 1 << 18


def crop(
    image: UInt8[np.ndarray, "h w c"],
    parameters: ViewParameters,
    size: ImageSize,
) -> UInt8[np.ndarray, "c h2 w2"]:
    """Cut a view out of a decoded image.

    Args:
        image: height before width.
        parameters: of the view.
        size: of the result, pixels.

    Returns:
        The crop, resized (bilinear, antialiased), and flipped if the parameters say so.
    """
    height, width = sides(size)
    x_min, y_min, x_max, y_max = parameters.box(image.shape[1], image.shape[0], width / height)
    cut = torch.from_numpy(image[y_min:y_max, x_min:x_max]).permute(2, 0, 1)[None]
    cut = cut.contiguous(memory_format=torch.channels_last)
    # torch's integer kernel: three times Pillow's speed, and at most a level away from it
    resized = nn.functional.interpolate(cut, (height, width), mode="bilinear", antialias=True)[0]
    if parameters.flip:
        resized = resized.flip(2)
    return np.ascontiguousarray(resized.numpy())


def cut_patches(
    view: UInt8[np.ndarray, "c h w"],
    parameters: ViewParameters,
    patch: int,
) -> UInt8[np.ndarray, "9 c patch patch"]:
    """Cut a patch out of each cell of a view.

    Args:
        view: as ``crop`` gives it.
        parameters: of the view.
        patch: side of the patches, pixels.
    """
    height = view.shape[1] // 3
    width = view.shape[2] // 3
    patches = []
    for number, x, y in parameters.puzzle:
        row, column = divmod(int(number), 3)
        y_min = row * height + int(y * (height - patch + 1))
        x_min = column * width + int(x * (width - patch + 1))
        patches.append(view[:, y_min : y_min + patch, x_min : x_min + patch])
    return np.stack(patches)


def apply_photometrics(
    crops: UInt8[Tensor, "b c h w"],
    numbers: Float[Tensor, "b 11"],
    operations: Float[Tensor, "b n 2"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """Jitter, blur, gray, solarize and normalise a batch of crops, on their device.

    A fourth band is cropped, flipped, blurred and moved alike, but it has no colours: jitter, gray,
    solarization and other changes of colours leave it as it is.

    Args:
        crops: RGB, perhaps with a fourth band.
        numbers: ``ViewParameters.colour`` of each crop, on the CPU.
        operations: ``ViewParameters.operations``, which follow the blur, likewise; None: none.

    Returns:
        Floats by ImageNet's mean and deviation. The bits of one do not depend on the others.
    """
    at_a_time = max(CACHED // crops[0].numel(), 1)
    if crops.device.type == "cpu" and len(crops) > at_a_time:
        of_crops = [crops, numbers] if operations is None else [crops, numbers, operations]
        parts = zip(*(torch.split(tensor, at_a_time) for tensor in of_crops), strict=True)
        return torch.cat([apply_photometrics(*part) for part in parts])
    x = crops.float() / 255
    order = numbers[:, :4]
    amounts = numbers[:, 4:]
    for place in range(4):
        for number, operation in enumerate(JITTER):
            x = change_some(x, order[:, place] == number, operation, amounts[:, number])
    for number, operation in enumerate(OTHERS, start=len(JITTER)):
        of_step = amounts[:, number]
        x = change_some(x, of_step > 0, operation, of_step, all_bands=operation is _blur)
        if operation is _blur and operations is not None:
            x = apply_operations(x, operations)
    return normalize(x)


def normalize(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """RGB in 0…1 to ImageNet's mean 0 and deviation 1.

    A fourth band stays in 0…1: its encoder knows the mean and deviation of what it was trained on.
    """
    others = x.shape[1] - len(MEAN)
    numbers = ((*MEAN, *[0.0] * others), (*STD, *[1.0] * others))
    mean, std = torch.tensor(numbers, device=x.device)[:, :, None, None].unbind()
    return (x - mean) / std


def _hue(x: Float[Tensor, "b 3 h w"], shift: Float[Tensor, "b 1 1 1"]) -> Float[Tensor, "b 3 h w"]:
    """Turn hues on the circle of HSV, saturation and value kept.

    Args:
        x: RGB in 0…1.
        shift: share of the circle.
    """
    red, green, blue = x.unbind(1)
    value = x.amax(1)
    chroma = value - x.amin(1)
    # masks as numbers, by arithmetic: comparisons and torch.where take ten times as long on a CPU
    is_red = ((red - value) * 1e8).add_(1).clamp_(0)
    is_green = ((green - value) * 1e8).add_(1).clamp_(0) * (1 - is_red)
    is_blue = 1 - is_red - is_green
    difference = is_red * (green - blue) + is_green * (blue - red) + is_blue * (red - green)
    hue = difference / chroma.clamp_min(1e-9) + 2 * is_green + 4 * is_blue + 6 * shift[:, 0]
    hue -= 6 * (hue / 6).floor_()
    # channel n of HSV → RGB: value − chroma · clamp(2 − d, 0, 1), where d is the distance of
    # n + hue − 2 from a multiple of 6
    angles = hue[:, None] + torch.tensor((3.0, 1.0, -1.0), device=x.device)[:, None, None]
    distance = torch.minimum(angles.abs(), (angles - 6).abs_())
    return value[:, None] - chroma[:, None] * distance.neg_().add_(2).clamp_(0, 1)


def _blur(x: Float[Tensor, "b c h w"], sigma: Float[Tensor, "b 1 1 1"]) -> Float[Tensor, "b c h w"]:
    """Pillow's Gaussian blur: three passes of a box of fractional radius along either axis.

    The border pixel is repeated outwards.

    Args:
        x: images.
        sigma: standard deviation, pixels.
    """
    deviation = sigma.to(widest_float(sigma.device))
    variance = deviation * deviation / 3
    # pixels on either side that count in full; one more counts in part, by the weight of the edge
    radius = (((12 * variance + 1).sqrt() - 1) / 2).floor()
    excess = 6 * (variance - (radius + 1) ** 2)
    edge = (2 * radius + 1) * (radius * (radius + 1) - 3 * variance) / excess
    reach = int(radius.max()) + 1
    distance = torch.arange(-reach, reach + 1, device=x.device).abs()
    weights = (distance <= radius) + edge * (distance == radius + 1)
    taps = (weights / (2 * (radius + edge) + 1)).to(x.dtype)
    for axis, margins in [(3, (reach, reach, 0, 0))] * 3 + [(2, (0, 0, reach, reach))] * 3:
        padded = nn.functional.pad(x, margins, mode="replicate")
        length = x.shape[axis]
        x = padded.narrow(axis, 0, length) * taps[..., :1]
        for tap in range(1, 2 * reach + 1):
            x.addcmul_(padded.narrow(axis, tap, length), taps[..., tap : tap + 1])
    return x


def _gray(x: Tensor, _amount: Tensor) -> Tensor:
    return luma(x).repeat(1, 3, 1, 1)


def _solarize(x: Tensor, _amount: Tensor) -> Tensor:
    return torch.where(x >= 127.5 / 255, 1 - x, x)


# in the order of ``ViewParameters.colour``: brightness first, and what follows the jitter
JITTER: tuple[PixelOperation, ...] = (
    operator.mul,
    change_contrast,
    change_saturation,
    _hue,
)
OTHERS: tuple[PixelOperation, ...] = (_blur, _gray, _solarize)
