"""The pixel rule: how values of any width and number of bands become red, green and blue.

One rule holds for all images of a set. It is decided before the first image is written, is in the
set's index, and what it changes is stored as it was changed; so training, evaluations and pictures
see the same.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
import numpy as np
from numpy.typing import NDArray
from shards.errors import ShardError
from shards.rejects import Reject, RejectError

Alpha = Literal["auto", "white", "drop"]
_PERCENTILES = re.compile(r"([0-9.]+)\s*%\s*,\s*([0-9.]+)\s*%")
# red, green, blue and one more, such as near infrared
FOUR_BANDS = 4
# larger floats stand for no value in GDAL's world, such as -3.4e38
_HUGE = 1e30
_LOOKED_AT = 1 << 16  # pixels of an image whose values are counted
_MOST = 0.98  # of the pixels: what stands out less is not looked at
_ROWS = 256  # of an image that are computed at once
_FEW_LEVELS = 16  # of 256 gray levels; fewer are little to learn from


class Raster(NamedTuple):
    """The values of an image as its file has them.

    Attributes:
        values: [height, width, bands], integers or floats.
        limit: the largest value that the file's format has for white; None of floats.
        has_alpha: whether the file calls its last band alpha.
        is_inverted: whether small values are white.
        no_data: the value of pixels that have none, or None.
    """

    values: NDArray[Any]
    limit: float | None = None
    has_alpha: bool = False
    is_inverted: bool = False
    no_data: float | None = None

    @property
    def colours(self) -> NDArray[Any]:
        """The values without those of alpha."""
        return self.values[..., :-1] if self.has_alpha else self.values

    @property
    def is_wide(self) -> bool:
        """Whether its values are no bytes."""
        return self.values.dtype != np.uint8


@dataclass(frozen=True)
class PixelRule:
    """How the images of a set become 8 bits and three channels, or four.

    Attributes:
        integers: the values of 16 bits and more that become black and white, or None: 0 and the
            largest that the format has.
        floats: the same of floats, or None: 0 and 1, or where there are others the image's own
            smallest and largest.
        percentiles: instead, parts in percent of each image's own values.
        bands: which bands, counted from 1, become red, green and blue, or gray; () are the first
            three. A fourth one stays a band of its own.
        alpha: "white" composites on white, "drop" takes a fourth band for another colour.
        is_chosen: whether the user gave the range.
    """

    integers: tuple[float, float] | None = None
    floats: tuple[float, float] | None = None
    percentiles: tuple[float, float] | None = None
    bands: tuple[int, ...] = ()
    alpha: Alpha = "white"
    is_chosen: bool = False

    @property
    def channels(self) -> int:
        """Of what it makes of an image: three, or four where four bands are named."""
        return channels_of(self.bands)

    def document(self) -> dict[str, Any]:
        """What the index says of the rule, {} where it changes nothing."""
        parts = {
            "integers": self.integers,
            "floats": self.floats,
            "percentiles": self.percentiles,
            "bands": self.bands,
            "alpha": "" if self.alpha == "white" else self.alpha,
        }
        return {
            name: value if isinstance(value, str) else [*value]
            for name, value in parts.items()
            if value
        }


class Conversion(NamedTuple):
    """An image by the rule.

    Attributes:
        pixels: [height, width, 3], or 4 of a rule of four bands, 8 bits.
        is_faded: whether few gray levels are left of many values.
    """

    pixels: NDArray[np.uint8]
    is_faded: bool


def parse_range(text: str | None) -> PixelRule:
    """A rule with the range that a user gives.

    Args:
        text: two numbers such as "0,4095", two percentages such as "1%,99%", or None.

    Returns:
        The rule, which is the default but for the range.

    Raises:
        ShardError: It is neither, or not an increasing pair.
    """
    if text is None:
        return PixelRule()
    try:
        match = _PERCENTILES.fullmatch(text.strip())
        low, high = map(float, match.groups() if match else text.split(","))
    except ValueError:
        low = high = np.nan
        match = None
    if not (low < high and np.isfinite([low, high]).all()) or (match and high > 100):
        raise ShardError(
            "wanted as the range two values such as 0,4095, or two percentages such as 1%,99%, the "
            f"smaller one first, got {text!r}"
        )
    if match:
        return PixelRule(percentiles=(low, high), is_chosen=True)
    return PixelRule(integers=(low, high), floats=(low, high), is_chosen=True)


def check_bands(bands: tuple[int, ...]) -> None:
    """A ``ShardError`` if these cannot be red, green and blue, these and one more, or gray."""
    if bands and (len(bands) not in (1, 3, FOUR_BANDS) or min(bands) < 1):
        raise ShardError(
            "wanted as bands one number, three, or four, counted from 1, such as 3,2,1, got "
            f"{','.join(map(str, bands))}"
        )


def channels_of(bands: Sequence[int]) -> int:
    """The channels of the images of a set.

    Args:
        bands: that its rule names; none are the first three.
    """
    return FOUR_BANDS if len(bands) == FOUR_BANDS else 3


def convert(raster: Raster, rule: PixelRule) -> Conversion:
    """Bring an image to 8 bits and three channels, or four.

    Args:
        raster: its values.
        rule: how.

    Returns:
        The pixels; what has no value is black.

    Raises:
        RejectError: It has other bands than red, green and blue, and the rule names none; or not
            those that it names.
    """
    colours = _choose_bands(raster, rule)
    levels = colours if not raster.is_wide else _scale(raster, colours, rule)
    if raster.is_inverted:
        levels = 255 - levels
    if raster.has_alpha and not rule.bands and rule.alpha != "drop":
        levels = _on_white(levels, raster)
    is_faded = raster.is_wide and _has_faded(colours, levels)
    pixels = np.broadcast_to(levels, (*levels.shape[:2], rule.channels))
    return Conversion(np.ascontiguousarray(pixels, np.uint8), is_faded)


def is_transparency(alpha: NDArray[Any], limit: float) -> bool:
    """Whether a band that a file calls alpha is what its name says.

    Transparency is nothing or all at most pixels, or has few values; near infrared, which GDAL
    marks as alpha as it does any fourth band, has none of this.

    Args:
        alpha: its values.
        limit: the value of what is opaque.
    """
    covered = alpha[alpha > 0]
    if not covered.size or np.mean(covered >= limit) >= 0.5:
        return True
    return len(np.unique(_some(covered))) < _FEW_LEVELS


def valid_values(raster: Raster, colours: NDArray[Any]) -> NDArray[Any]:
    """The values of some bands of an image, but for those that stand for none.

    Args:
        raster: the image.
        colours: of its bands.

    Returns:
        Some of them, at most 65,536 [count].
    """
    values = _some(colours)
    return values[_is_valid(values, raster.no_data)]


def is_nearly_constant(pixels: NDArray[np.uint8]) -> bool:
    """Whether an image is nearly constant: most of its pixels are within 8 of 256 gray levels.

    Args:
        pixels: [height, width, channels].
    """
    parts = ((1 - _MOST) / 2 * 100, (1 + _MOST) / 2 * 100)
    rows = pixels.reshape(-1, pixels.shape[-1])
    some = rows[:: max(1, len(rows) // _LOOKED_AT)]
    low, high = np.percentile(some, parts, axis=0, method="nearest")
    return bool((high.astype(int) - low < 8).all())


def _choose_bands(raster: Raster, rule: PixelRule) -> NDArray[Any]:
    """The bands that become red, green and blue, or gray [height, width, 1, 3 or 4]."""
    count = raster.values.shape[2]
    if rule.bands:
        if max(rule.bands) > count:
            raise RejectError(Reject.FEW_BANDS, f"{count} bands")
        return raster.values[..., [band - 1 for band in rule.bands]]
    colours = raster.colours
    if colours.shape[2] in (1, 3):
        return colours
    if colours.shape[2] != 4:
        raise RejectError(Reject.BANDS, f"{count} bands")
    return colours[..., :3]


def _scale(raster: Raster, colours: NDArray[Any], rule: PixelRule) -> NDArray[np.uint8]:
    """Wide values as bytes: linear between those that become black and white."""
    low, high = _range_of(raster, colours, rule)
    span = max(high - low, float(np.finfo(np.float32).tiny))
    levels = np.empty(colours.shape, np.uint8)
    for start in range(0, len(colours), _ROWS):  # floats of all would fill the memory
        block = colours[start : start + _ROWS]
        values = np.where(_is_valid(block, raster.no_data), block, low).astype(np.float64)
        levels[start : start + _ROWS] = np.clip((values - low) / span * 255, 0, 255).round()
    return levels


def _range_of(raster: Raster, colours: NDArray[Any], rule: PixelRule) -> tuple[float, float]:
    """The values of an image that become black and white."""
    if rule.percentiles is not None:
        values = valid_values(raster, colours)
        if not values.size:
            return 0, 1
        low, high = np.percentile(values, rule.percentiles).tolist()
        return low, high
    of_floats = np.issubdtype(raster.values.dtype, np.floating)
    chosen = rule.floats if of_floats else rule.integers
    if chosen is not None:
        return chosen
    if raster.limit is not None:
        return 0, raster.limit
    values = valid_values(raster, colours)
    if not values.size or (values.min() >= 0 and values.max() <= 1):
        return 0, 1
    return float(values.min()), float(values.max())


def _on_white(levels: NDArray[Any], raster: Raster) -> NDArray[np.uint8]:
    """Pixels with their transparency on white."""
    limit = raster.limit or 1
    pixels = np.empty(levels.shape, np.uint8)
    for start in range(0, len(levels), _ROWS):
        rows = slice(start, start + _ROWS)
        share = np.clip(raster.values[rows, :, -1:] / limit, 0, 1)
        pixels[rows] = (levels[rows] * share + 255 * (1 - share)).round()
    return pixels


def _has_faded(colours: NDArray[Any], levels: NDArray[Any]) -> bool:
    """Whether few gray levels are left where there were many values."""
    level_count = _count_of_most(_some(levels))
    value_count = _count_of_most(_some(colours))
    return level_count < _FEW_LEVELS and value_count >= 4 * level_count


def _count_of_most(values: NDArray[Any]) -> int:
    """How many different values suffice for most of some."""
    _, counts = np.unique(values, return_counts=True)
    ordered = np.sort(counts)[::-1]
    return int(np.searchsorted(np.cumsum(ordered), _MOST * len(values))) + 1


def _some(values: NDArray[Any]) -> NDArray[Any]:
    """Values of an image, evenly over it, without its shape."""
    flat = values.reshape(-1)
    return flat[:: max(1, len(flat) // _LOOKED_AT)]


def _is_valid(values: NDArray[Any], no_data: float | None) -> NDArray[np.bool_]:
    """Which values are ones: finite, not huge, and not the file's word for none."""
    valid: NDArray[np.bool_]
    if np.issubdtype(values.dtype, np.floating):
        valid = np.isfinite(values) & (np.abs(values.astype(np.float64)) < _HUGE)
    else:
        valid = np.ones(values.shape, bool)
    if no_data is not None:
        valid &= values != no_data
    return valid
