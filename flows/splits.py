"""What of a source is to train on and what to evaluate on."""

from pathlib import Path
from typing import NamedTuple
from flows.result import Result
from shards import sources, storage

VALIDATION_FOLDERS = ("val", "validation", "valid", "test")
TRAIN_SHARE = 0.8  # of labelled images that have nothing beside them to evaluate on


class Split(NamedTuple):
    """Which images are trained and evaluated on.

    Attributes:
        parts: by "train" and, where there are labels, "val": inputs of the stage that builds it.
        skipped: what is left out, and why.
    """

    parts: dict[str, Result]
    skipped: list[str]


def split_scenes(train: int, val: int) -> Split:
    """Procedural scenes: the first ones are trained on, those that follow are evaluated on."""
    parts: dict[str, Result] = {
        "train": {"source": f"scenes:0+{train}"},
        "val": {"source": f"scenes:{train}+{val}"},
    }
    return Split(parts, [])


def split_images(images: str, val: str | None = None) -> Split:
    """A folder with ``train`` and perhaps ``val`` in it, or one source of both.

    Args:
        images: a source, or such a folder; path or URL.
        val: labelled images to evaluate on; None: those beside ``train``, or a share of it.

    Raises:
        ShardError: There are no images.
    """
    root = storage.locate(images)
    source = images
    named = [val] if val else []
    if (root / "train").is_dir():
        source = f"{images}/train"
        named += [f"{images}/{name}" for name in VALIDATION_FOLDERS if (root / name).is_dir()]
    skipped = [
        f"the folder {Path(name).name}: {Path(named[0]).name} is evaluated" for name in named[1:]
    ]
    if not sources.find(source).classes:
        evaluations = "kNN, linear and few-label evaluation"
        skipped.append(f"{evaluations}: the images have no labels (no class folders)")
        return Split({"train": {"source": source}}, skipped)
    if named:
        return Split({"train": {"source": source}, "val": {"source": named[0]}}, skipped)
    parts: dict[str, Result] = {
        "train": {"source": source, "share": [0, TRAIN_SHARE]},
        "val": {"source": source, "share": [TRAIN_SHARE, 1]},
    }
    return Split(parts, skipped)
