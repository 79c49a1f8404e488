"""Which batch suits a set: the paper's, or of a small set one that leaves an epoch some steps."""

from pathlib import Path
from care.train.mirror import recorded_settings

# Sec. 4.1, for ImageNet's 1.28 million images
PAPERS = 1024
# that an epoch is to have at least
STEPS = 4
# of which batch norm has statistics
LEAST = 2


def suitable_batch_size(images: int, *, parts: int = 1) -> int:
    """The batch for a set of a size, where no other one is asked for.

    Args:
        images: of the set.
        parts: into which every batch is cut: the processes, times those of an accumulation.

    Returns:
        ``PAPERS`` or a half of it, a quarter and so on, so that an epoch has ``STEPS`` steps; as
        near to that as ``parts`` of at least ``LEAST`` images allow.
    """
    batch_size = parts * LEAST
    while 2 * batch_size <= min(PAPERS, images // STEPS):
        batch_size *= 2
    return batch_size


def default_batch_size(run: str | Path, images: int, *, parts: int = 1) -> int:
    """The batch of a run that goes on, else the one that suits its set.

    Args:
        run: run directory or URL.
        images: of the set.
        parts: into which every batch is cut.
    """
    recorded = recorded_settings(run)
    if recorded is not None and "batch_size" in recorded:
        return int(recorded["batch_size"])
    return suitable_batch_size(images, parts=parts)
