"""The images that all runs of a grid are trained and judged on."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
import shards
from flows.facts import LEAST_LABELS
from flows.facts import label_counts as counts_of_shares
from flows.result import Result
from flows.splits import split_images
from shards import storage
from shards.bounds import Fraction, PositiveInt
from shards.errors import Misuse, ShardError
from shards.reader import unknown_classes

# whatever the runs' seeds, all are trained and judged on the same images in the same shards
DATA_SEED = 0


@dataclass(frozen=True)
class ImageChoice:
    """Which images were asked for.

    Attributes:
        images: class folders, or train beside val folders of them, or shards; else scenes.
        val: labelled images to judge on, where they are not beside those to train on.
        screen: share of train that is judged on instead of val, which stays untouched.
        train_scenes: procedural scenes to train on.
        val_scenes: procedural scenes to judge on.
    """

    images: str | None = None
    val: str | None = None
    screen: Fraction = 0
    train_scenes: PositiveInt = 2000
    val_scenes: PositiveInt = 400


@dataclass(frozen=True)
class GridImages:
    """The images of a grid.

    Attributes:
        title: in words.
        parts: inputs of the stages that build "train" and "val".
        scenes: numbers of the procedural scenes that are judged on, where they are such.
    """

    title: str
    parts: dict[str, Result]
    scenes: range | None = None


def grid_images(choice: ImageChoice, out: str) -> GridImages:
    """The images to train and to judge on.

    Args:
        choice: what was asked for.
        out: folder of the grid.

    Raises:
        Misuse: There are none to train or to judge on, or ``out`` lies among them.
    """
    if not 0 <= choice.screen < 1:
        raise Misuse(f"wanted a share of train below 1 to hold out, got {choice.screen:g}")
    if choice.images:
        return folder_images(choice.images, choice.val, choice.screen, out)
    return scene_images(choice.train_scenes, choice.val_scenes, choice.screen)


def scene_images(train_scenes: int, val_scenes: int, screen: float) -> GridImages:
    """Procedural scenes to train and to judge on.

    Args:
        train_scenes: how many are to train on, the first ones.
        val_scenes: how many of those that follow are to judge on.
        screen: share of the former that is judged on instead, their last ones; 0: none.

    Raises:
        Misuse: Nothing is left to train on.
    """
    judged = range(train_scenes, train_scenes + val_scenes)
    if screen:
        judged = range(train_scenes - max(round(train_scenes * screen), 1), train_scenes)
        if judged.start < 1:
            raise Misuse(f"wanted a share below 1 held out, got {screen:g} of {train_scenes}")
    trained = judged.start if screen else train_scenes
    parts: dict[str, Result] = {
        "train": {"source": f"scenes:0+{trained}"},
        "val": {"source": f"scenes:{judged.start}+{len(judged)}"},
    }
    return GridImages(_title("procedural scenes", screen), parts, judged)


def folder_images(images: str, val: str | None, screen: float, out: str) -> GridImages:
    """Labelled images to train and to judge on.

    Args:
        images: as for ``care pipeline``: folders, sets of shards, or another source.
        val: those to judge on, where they are not beside those to train on.
        screen: share of those to train on that is judged on instead; 0: none.
        out: folder of the grid.

    Raises:
        Misuse: They have no labels, or ``out`` is among them.
    """
    if f"{storage.locate(out).absolute()}/".startswith(f"{storage.locate(images).absolute()}/"):
        raise Misuse(f"wanted another folder for results than that of the images, got {out}")
    split = split_images(images, val)
    parts, skipped = split.parts, split.skipped
    if "val" not in parts:
        raise Misuse(f"wanted images with labels to judge on, {images}: {'; '.join(skipped)}")
    if screen:
        train = parts["train"]
        low, high = train.get("share", (0, 1))
        cut = low + (high - low) * (1 - screen)
        parts = {"train": train | {"share": [low, cut]}, "val": train | {"share": [cut, high]}}
    return GridImages(_title(Path(images).resolve().name, screen), parts)


def label_counts(sets: dict[str, Result], labels: Iterable[float]) -> dict[float, int]:
    """How many images the shares of the training labels are, of those that suffice.

    Args:
        sets: results of the stages that build "train" and "val".
        labels: shares above 0 and up to 1.

    Raises:
        ShardError: val has classes that train has not; told before the training, not after it.
    """
    train = shards.open(sets["train"]["url"])
    val = shards.open(sets["val"]["url"])
    unknown = unknown_classes(train, val)
    if unknown:
        raise ShardError(
            "wanted classes to judge on that are among those to train on, got others: "
            f"{', '.join(unknown[:5])}; name classes alike in both, or leave those images out"
        )
    counts = counts_of_shares(train.labels, labels)
    return {share: count for share, count in counts.items() if count >= LEAST_LABELS}


def _title(images: str, screen: float) -> str:
    """What the images are called, and whether a part of train stands for val."""
    return f"{images}, judged on {100 * screen:g} % of train held out" if screen else images
