"""Where a run goes on: its progress is images that were seen, whatever the size of its batches."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from care.errors import CareError
from care.train.settings import Settings


class Position(NamedTuple):
    """How far a run is.

    Attributes:
        start: steps that the images seen so far are, in batches of this call.
        offset: steps that were taken, less ``start``; 0 where the batch size never changed. With it
            the numbers of checkpoints and the lines of the log go on, also where steps do not.
    """

    start: int = 0
    offset: int = 0

    @property
    def taken(self) -> int:
        """Steps that were taken, of whatever batch size."""
        return self.start + self.offset


def position_of(
    run: str | Path, manifest: Mapping[str, Any], now: Settings, images: int | None
) -> Position:
    """Find where a run goes on that has a checkpoint.

    With another batch size it goes on after the same epochs, and in its epoch after as many images,
    rounded down to batches: some images may be seen twice in that epoch, none is passed over.

    Args:
        run: run directory or URL, for the message.
        manifest: of the checkpoint.
        now: settings of this call.
        images: of the set, of which each epoch leaves out the last, incomplete batch; None: there
            are no epochs.

    Returns:
        The position.

    Raises:
        CareError: More was seen than this call asks for.
    """
    offset = manifest.get("offset", 0)
    start = manifest["step"] - offset
    batch_size = now["batch_size"]
    before = manifest["settings"].get("batch_size", batch_size)
    if batch_size != before:
        start = _steps_in_batches(start, before, batch_size, images)
        offset = manifest["step"] - start
    if start > now["steps"]:
        raise CareError(
            f"{run} has seen the images of {start} steps of {batch_size}, this call asks for "
            f"{now['steps']}; ask for more, or choose a new run directory"
        )
    return Position(start, offset)


def _steps_in_batches(steps: int, before: int, now: int, images: int | None) -> int:
    """Steps of one batch size in steps of another one, rounded down.

    Args:
        steps: that were taken.
        before: images a step, as they were taken.
        now: images a step.
        images: of an epoch with its last, incomplete batch, or None.
    """
    if images is None:
        return steps * before // now
    epochs, steps_of_epoch = divmod(steps, max(images // before, 1))
    per_epoch = images // now
    # an epoch of larger batches may be shorter
    return epochs * per_epoch + min(steps_of_epoch * before // now, per_epoch)
