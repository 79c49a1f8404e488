"""Views that a training cannot take, refused in a line before its first step."""

from collections.abc import Sequence
from torch import nn
from care.encoded import map_shape
from care.errors import CareError
from care.streams import GLOBAL_VIEWS, CStream, TStream
from care.train.views import View
from care.vit import ViTEncoder
from shards.image_size import ImageSize, image_size, sides


def check_views(
    views: Sequence[View],
    size: ImageSize,
    c: CStream,
    t: TStream | None,
) -> None:
    """Refuse views that cannot be cut, that the encoder cannot take, or that nobody learns from.

    Args:
        views: of a training.
        size: of those that have none of their own, pixels.
        c: the C-stream.
        t: the T-stream, or None.

    Raises:
        CareError: One of these is so; the message says what is wanted.
    """
    for number, view in enumerate(views, 1):
        _check_view(view, number, size)
    crops = [view for view in views if view.patch is None]
    if list(views[: len(crops)]) != crops:
        raise CareError("wanted views of patches behind all others, got one before a crop")
    c.objective.check_views(len(crops), len(views) - len(crops))
    sizes = [image_size(view.seen_size(size)) for view in crops[:GLOBAL_VIEWS]]
    if t is not None:
        if len(sizes) < GLOBAL_VIEWS:
            raise CareError(
                "the T-stream compares two views of an image, got 1; wanted another view, or no"
                " T-stream"
            )
        if len(set(sizes)) > 1:
            raise CareError(
                f"the T-stream compares maps of two views of one size, got views of {sizes[0]} and"
                f" {sizes[1]} px"
            )
    for seen_size in dict.fromkeys(view.seen_size(size) for view in views):
        _check_size(c.backbone.online, seen_size)


def _check_view(view: View, number: int, size: ImageSize) -> None:
    """Refuse a view that cannot be cut out of any image."""
    least, most = view.scale
    if not 0 < least <= most <= 1:
        raise CareError(
            f"view {number} is a crop of {least} to {most} of an image; wanted shares of its area,"
            " the least first, none of them more than 1"
        )
    side = sides(view.crop_size(size)).shorter
    least_side = min(side, sides(view.seen_size(size)).shorter)
    if least_side < 1:
        raise CareError(f"view {number} has a side of {least_side} px; wanted at least 1")
    if view.patch is not None and view.patch > side // 3:
        raise CareError(
            f"view {number} has patches of {view.patch} px, more than a third of its {side} px;"
            f" wanted at most {side // 3}, or a view of {3 * view.patch} px"
        )


def _check_size(encoder: nn.Module, size: ImageSize) -> None:
    """Refuse views of which an encoder makes no map, or for which it has no positions."""
    if isinstance(encoder, ViTEncoder):
        encoder.grid_of(size)
    try:
        map_shape(encoder, size)
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        name = getattr(encoder, "name", "") or type(encoder).__name__
        reason = str(error).partition("\n")[0] or "it has no map of them"
        raise CareError(f"{name} cannot take views of {size} px: {reason}") from error
