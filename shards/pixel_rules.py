"""Which pixel rule suits the images of a source, where the user has not said all of it.

Some images, evenly chosen over the source, are looked at. So the rule is one for the whole set, and
the brightness of its images stays comparable.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple
import numpy as np
from numpy.typing import NDArray
from shards import images, storage
from shards.errors import ShardError
from shards.kinds import UNREAD_SUFFIXES
from shards.pixels import (
    Alpha,
    PixelRule,
    Raster,
    check_bands,
    is_transparency,
    parse_range,
    valid_values,
)
from shards.rejects import RejectError
from shards.sources.candidates import Candidate, is_link, read_image, suffix

# files of 8 bits that have no band but red, green and blue, and those that are never read
_NOT_LOOKED_AT = UNREAD_SUFFIXES.union((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".gif"))
_LOOKED_AT = 32  # files
_LOOKED_AT_REMOTE = 8
_VALUES = 4096  # of each file
_OUTSIDE = 0.1  # percent of the values at either end that may lie outside of the range
# values that sensors and formats have for white
_WHITES = (1, 255, 1023, 4095, 16383, 65535)
_FILLED = 0.25  # of a usual range; what fills less of it has its own


class Choice(NamedTuple):
    """What the user says of the rule.

    Attributes:
        value_range: as for ``shards.build``.
        bands: which bands, counted from 1, become red, green and blue, or gray.
        alpha: "auto" is decided.
    """

    value_range: str | None = None
    bands: Sequence[int] = ()
    alpha: Alpha = "auto"


class Decision(NamedTuple):
    """The rule of a set.

    Attributes:
        rule: the rule, nothing of it open.
        notes: what a user might not expect of it, one line each.
    """

    rule: PixelRule
    notes: list[str]


def decide_rule(candidates: Sequence[Candidate], choice: Choice | None = None) -> Decision:
    """Decide the rule of a set.

    Values are mapped from 0 to the first of 255, 1,023, 4,095, 16,383 and 65,535, of floats also 1,
    that none of the images looked at exceeds; where they fill less than a quarter of that, or are
    negative or larger, from about their smallest to their largest. A tenth of a percent of them may
    lie outside. A band called alpha is dropped if it is no transparency in half of the images.

    Args:
        candidates: the images of the source, in its order.
        choice: what the user says.

    Returns:
        The rule, and what is to be told of it.

    Raises:
        ShardError: The user's range, bands or alpha are none.
    """
    value_range, bands, alpha = choice or Choice()
    rule = replace(parse_range(value_range), bands=tuple(bands))
    check_bands(rule.bands)
    if alpha not in ("auto", "white", "drop"):
        raise ShardError(f"wanted alpha auto, white or drop, got {alpha!r}")
    # where both are given, the images decide nothing
    rasters = [] if rule.is_chosen and bands else _look_at(candidates)
    notes = list[str]()
    if alpha == "auto" and not bands:
        drops = _drops_alpha(rasters, notes)
        rule = replace(rule, alpha="drop" if drops else "white")
    elif alpha == "drop":
        rule = replace(rule, alpha=alpha)
    if not rule.is_chosen:
        ranges = _ranges(rasters, rule, notes)
        rule = replace(rule, integers=ranges.get("integers"), floats=ranges.get("floats"))
    if not bands and any(_extra_band(raster) for raster in rasters):
        notes.append(
            "images have a fourth band, which is left out: the first three become red, green and "
            "blue; --bands 3,2,1 names others"
        )
    return Decision(rule, notes)


def _look_at(candidates: Sequence[Candidate]) -> list[Raster]:
    """The values of some images that are more than 8 bits of red, green and blue."""
    likely = [
        image
        for image in candidates
        if suffix(image.name) not in _NOT_LOOKED_AT and not is_link(image.path)
    ]
    remote = bool(likely) and storage.is_remote(likely[0].path)
    count = min(len(likely), _LOOKED_AT_REMOTE if remote else _LOOKED_AT)
    places = np.linspace(0, len(likely) - 1, count).round().astype(int).tolist() if count else []
    rasters = list[Raster]()
    for place in places:
        try:
            raster = images.read_values(read_image(likely[place]))
        except RejectError:  # the build says why, by name
            continue
        if raster is not None:
            rasters.append(raster)
    return rasters


def _drops_alpha(rasters: Sequence[Raster], notes: list[str]) -> bool:
    """Whether the bands that files call alpha are none, which becomes a note."""
    bands = [(raster.values[..., -1], raster.limit or 1) for raster in rasters if raster.has_alpha]
    others = sum(not is_transparency(band, limit) for band, limit in bands)
    if not others or others < len(bands) / 2:
        return False
    notes.append(
        f"the band that files call alpha is no transparency in {others} of {len(bands)} images "
        "(GDAL marks near infrared so): it is left out. --alpha white composites on white, "
        "--bands 4,3,2 chooses others"
    )
    return True


def _ranges(
    rasters: Sequence[Raster], rule: PixelRule, notes: list[str]
) -> dict[str, tuple[float, float]]:
    """The ranges of integers and of floats, where there are any, which become notes."""
    pools = {"integers": list[NDArray[Any]](), "floats": list[NDArray[Any]]()}
    for raster in rasters:
        if raster.is_wide:
            is_float = np.issubdtype(raster.values.dtype, np.floating)
            values = valid_values(raster, _colours(raster, rule))
            step = max(1, len(values) // _VALUES)
            pools["floats" if is_float else "integers"].append(values[::step].astype(float))
    ranges = dict[str, tuple[float, float]]()
    for kind, pool in pools.items():
        values = np.concatenate(pool) if pool else np.array([])
        if not values.size:
            continue
        low, high = ranges[kind] = _usual_range(values, of_floats=kind == "floats")
        smallest, largest = values.min(), values.max()
        notes.append(
            f"{kind} of more than 8 bits, {smallest:,.6g} to {largest:,.6g} in {len(pool)} images "
            f"that were looked at: {low:,.6g} becomes black and {high:,.6g} white; "
            "--range LOW,HIGH or --range 1%,99% says otherwise"
        )
    return ranges


def _colours(raster: Raster, rule: PixelRule) -> NDArray[Any]:
    """The bands whose values count for the range."""
    chosen = [band - 1 for band in rule.bands if band <= raster.values.shape[2]]
    return raster.values[..., chosen] if chosen else raster.colours[..., :3]


def _usual_range(values: NDArray[Any], *, of_floats: bool) -> tuple[float, float]:
    """The values that become black and white, for those of many images."""
    low, high = np.percentile(values, (_OUTSIDE, 100 - _OUTSIDE), method="nearest").tolist()
    if low >= 0:
        for white in _WHITES[0 if of_floats else 1 :]:
            if high <= white:
                if high - low >= _FILLED * white or low == high:
                    return 0, white
                break
    # round numbers, so that sets of the same kind agree
    step = 10.0 ** np.floor(np.log10(max(high - low, 1e-6)) - 1)
    start, stop = np.floor(low / step), np.ceil(high / step)
    return float(f"{start * step:.6g}"), float(f"{max(stop, start + 1) * step:.6g}")


def _extra_band(raster: Raster) -> bool:
    """Whether there is a fourth band that is not called alpha."""
    return raster.values.shape[2] == 4 and not raster.has_alpha
