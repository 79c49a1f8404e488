"""What operations do to the pixels of a batch, each to those images that it was drawn for."""

from collections.abc import Callable
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torchvision.transforms.v2 import functional
from care.train.devices import widest_float
from care.train.operations import LEVELS, Operation

# of images [b, c, h, w] in 0…1 and of amounts [b, 1, 1, 1]
PixelOperation = Callable[[Tensor, Tensor], Tensor]
# what comes in where an image is moved: ImageNet's mean, in 8 bits
FILL = (124, 116, 104)
# levels below this one become brighter by what is added
DARK = 128
_TOP = LEVELS - 1
_COLOURS = len(FILL)
# weights of a pixel and of its eight neighbours in a smooth image, as Pillow's
_CENTRE, _SUM = 5, 13


def apply_operations(
    x: Float[Tensor, "b c h w"], operations: Float[Tensor, "b n 2"]
) -> Float[Tensor, "b c h w"]:
    """Apply the operations of each image, one after the other.

    Args:
        x: RGB in 0…1, perhaps with a fourth band; may be overwritten.
        operations: as ``draw_operations`` gives them, on the CPU.

    Returns:
        The same bands. The bits of one image do not depend on the others.
    """
    for step in operations.unbind(1):
        kinds, amounts = step.unbind(1)
        for kind, operation in OPERATIONS.items():
            all_bands = kind in OF_ALL_BANDS
            x = change_some(x, kinds == kind, operation, amounts, all_bands=all_bands)
    return x


def change_some(
    x: Float[Tensor, "b c h w"],
    chosen: Bool[Tensor, " b"],
    operation: PixelOperation,
    amounts: Float[Tensor, " b"],
    *,
    all_bands: bool = False,
) -> Float[Tensor, "b c h w"]:
    """Apply an operation to those images that are chosen, each by its own amount.

    Args:
        x: RGB in 0…1, as the results are, perhaps with a fourth band; may be overwritten.
        chosen: on the CPU, like the amounts.
        operation: of images and amounts [b, 1, 1, 1].
        amounts: of all images.
        all_bands: whether a fourth band is changed, too; it has no colours, but lies where they do.
    """
    rows = chosen.nonzero()[:, 0]
    if len(rows) == 0:
        return x
    if not all_bands and x.shape[1] > _COLOURS:
        colours = change_some(x[:, :_COLOURS], chosen, operation, amounts)
        return torch.cat((colours, x[:, _COLOURS:]), dim=1)
    of_rows = amounts[rows].to(x.device).reshape(-1, 1, 1, 1)
    if len(rows) == len(x):
        return operation(x, of_rows).clamp_(0, 1)
    rows = rows.to(x.device)
    x[rows] = operation(x[rows], of_rows).clamp_(0, 1)
    return x


def luma(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Gray by the weights of ITU-R BT.601, as Pillow's."""
    red, green, blue = x.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]


def change_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply the distances from the mean gray."""
    return torch.lerp(luma(x.mean((2, 3), keepdim=True)), x, factor)


def change_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply the distances from gray."""
    return torch.lerp(luma(x).expand_as(x), x, factor)


def _levels(x: Tensor) -> Tensor:
    """Pixels as integers in 0…255, in x's number format."""
    return (x * _TOP).round_()


def _stretch_contrast(x: Tensor, _amount: Tensor) -> Tensor:
    """Stretch each channel from black to white, but one of a single value."""
    low = x.amin((2, 3), keepdim=True)
    high = x.amax((2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0, (x - low) / span.clamp_min(1e-6), x)


def _equalize(x: Tensor, _amount: Tensor) -> Tensor:
    evened: Tensor = functional.equalize(_levels(x).to(torch.uint8))
    return evened.to(x.dtype) / _TOP


def _invert(x: Tensor, _amount: Tensor) -> Tensor:
    return 1 - x


def _posterize(x: Tensor, bits: Tensor) -> Tensor:
    step = torch.exp2(8 - bits)
    return (_levels(x) / step).floor_() * step / _TOP


def _solarize(x: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(_levels(x) < threshold, x, 1 - x)


def _solarize_add(x: Tensor, added: Tensor) -> Tensor:
    return torch.where(_levels(x) < DARK, x + added / _TOP, x)


def _multiply(x: Tensor, factor: Tensor) -> Tensor:
    return x * factor


def _sharpen(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply the distances from a smooth image, whose border is that of the image itself."""
    if min(x.shape[2:]) < 3:
        return x
    sums = nn.functional.avg_pool2d(x, 3, stride=1, divisor_override=1)
    inner = x[:, :, 1:-1, 1:-1]
    smooth = x.clone()
    smooth[:, :, 1:-1, 1:-1] = (sums + (_CENTRE - 1) * inner) / _SUM
    return torch.lerp(smooth, x, factor)


def _rotate(x: Tensor, degrees: Tensor) -> Tensor:
    height, width = x.shape[2:]
    angle = -torch.deg2rad(degrees.to(widest_float(x.device)))
    cos, sin = angle.cos(), angle.sin()
    return _sample(
        x,
        lambda across, down: (
            cos * (across - width / 2) + sin * (down - height / 2) + width / 2,
            cos * (down - height / 2) - sin * (across - width / 2) + height / 2,
        ),
    )


def _shear_x(x: Tensor, factor: Tensor) -> Tensor:
    return _sample(x, lambda across, down: (across + factor * down, down))


def _shear_y(x: Tensor, factor: Tensor) -> Tensor:
    return _sample(x, lambda across, down: (across, down + factor * across))


def _translate_x(x: Tensor, share: Tensor) -> Tensor:
    return _sample(x, lambda across, down: (across + share * x.shape[3], down))


def _translate_y(x: Tensor, share: Tensor) -> Tensor:
    return _sample(x, lambda across, down: (across, down + share * x.shape[2]))


def _sample(
    x: Float[Tensor, "b c h w"], source: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> Float[Tensor, "b c h w"]:
    """Take each pixel from another place, bilinearly; what comes from outside is filled.

    Args:
        x: RGB in 0…1, perhaps with a fourth band, which is filled by its own mean.
        source: from where, of the places of all pixels from the left [1, 1, 1, w] and from the
            top [1, 1, h, 1]; a pixel's middle lies at a half.
    """
    height, width = x.shape[2:]
    dtype = widest_float(x.device)
    across = torch.arange(width, device=x.device, dtype=dtype).add_(0.5).reshape(1, 1, 1, -1)
    down = torch.arange(height, device=x.device, dtype=dtype).add_(0.5).reshape(1, 1, -1, 1)
    from_left, from_top = source(across, down)
    is_inside = (from_left >= 0) & (from_left < width) & (from_top >= 0) & (from_top < height)
    shape = (len(x), 1, height, width)
    places = [
        (2 * place / side - 1).expand(shape)
        for place, side in ((from_left, width), (from_top, height))
    ]
    grid = torch.stack(places, dim=-1)[:, 0].to(x.dtype)
    moved = nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    fill = torch.tensor(FILL, device=x.device, dtype=x.dtype).reshape(1, 3, 1, 1) / _TOP
    if x.shape[1] > _COLOURS:
        own_means = x[:, _COLOURS:].mean((2, 3), keepdim=True)
        fill = torch.cat((fill.expand(len(x), -1, -1, -1), own_means), dim=1)
    return torch.where(is_inside, moved, fill)


OPERATIONS: dict[Operation, PixelOperation] = {
    Operation.AUTO_CONTRAST: _stretch_contrast,
    Operation.EQUALIZE: _equalize,
    Operation.INVERT: _invert,
    Operation.ROTATE: _rotate,
    Operation.POSTERIZE: _posterize,
    Operation.SOLARIZE: _solarize,
    Operation.SOLARIZE_ADD: _solarize_add,
    Operation.SATURATION: change_saturation,
    Operation.CONTRAST: change_contrast,
    Operation.BRIGHTNESS: _multiply,
    Operation.SHARPNESS: _sharpen,
    Operation.SHEAR_X: _shear_x,
    Operation.SHEAR_Y: _shear_y,
    Operation.TRANSLATE_X: _translate_x,
    Operation.TRANSLATE_Y: _translate_y,
}
# what moves pixels or sharpens them; all others change colours
OF_ALL_BANDS = frozenset(
    (
        Operation.ROTATE,
        Operation.SHARPNESS,
        Operation.SHEAR_X,
        Operation.SHEAR_Y,
        Operation.TRANSLATE_X,
        Operation.TRANSLATE_Y,
    )
)
