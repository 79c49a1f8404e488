"""What all runs of a grid share: the images they are trained and judged on, and the regime."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
import numpy as np
import shards
from flows.arms import Arm
from flows.pipeline import PROTOCOLS, splits
from flows.tables import Result
from shards import storage
from shards.errors import Misuse, ShardError

LEAST_LABELS = 3  # images: of fewer, fine-tuning can hold none out to choose by
# whatever the runs' seeds, all are trained and judged on the same images in the same shards
DATA_SEED = 0


class Run(NamedTuple):
    """One training of the grid, and its evaluations."""

    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        """What its stages and files are called."""
        return f"{self.arm.name}-seed-{self.seed}"


@dataclass(frozen=True)
class Data:
    """The images of a grid.

    Attributes:
        title: in words.
        parts: inputs of the stages that build "train" and "val".
        scenes: numbers of the procedural scenes that are judged on, where they are such.
    """

    title: str
    parts: dict[str, Result]
    scenes: range | None = None


@dataclass(frozen=True)
class Regime:
    """How every run is trained and judged, whatever its arm.

    Attributes:
        encoder: a name for ``care.build_encoder``, without a tap.
        size: side of views and of the evaluations' crops, pixels.
        hidden: hidden width of projectors and predictors.
        steps: of an arm whose share of them is 1.
        batch_size: images a step.
        warmup_share: share of the steps in which the learning rate rises.
        lr: base learning rate for 256 images.
        momentum: first momentum coefficient of the targets.
        views: fields of ``care.train.View`` that differ from the paper's.
        labels: shares of the training labels that are fine-tuned on.
        finetune: settings of that.
        finetune_steps: about how many; None: as the settings say.
        trials: fine-tunings of each run, whose mean counts.
    """

    encoder: str
    size: int
    hidden: int
    steps: int
    batch_size: int
    warmup_share: float
    lr: float
    momentum: float
    views: Result
    labels: tuple[float, ...]
    finetune: Result
    finetune_steps: int | None
    trials: int

    def training(self, run: Run, steps: int) -> Result:
        """What ``flows.stages.pretrain`` is given for a run, but the set and the machine's part.

        The same names and values as ``care pipeline`` gives it: equal trainings are shared.
        """
        return {
            "encoder": run.arm.encoder(self.encoder),
            "size": self.size,
            "hidden": self.hidden,
            "views": self.views,
            "seed": run.seed,
            "steps": steps,
            "batch_size": self.batch_size,
            "warmup": int(steps * self.warmup_share),
            "lr": self.lr,
            "momentum": self.momentum,
            **run.arm.stage_inputs(),
        }

    def tuning(self, share: float, count: int) -> Result:
        """What fine-tuning on a share of the labels, ``count`` images, is given beside the sets."""
        settings: Result = {"verb": "finetune", "size": self.size, "fraction": share}
        settings |= {"trials": self.trials, **self.finetune}
        if self.finetune_steps is None:
            return settings
        epochs = round(self.finetune_steps * min(self.finetune["batch_size"], count) / count)
        return settings | {"epochs": [max(epochs, 1)]}


def scene_data(train_scenes: int, val_scenes: int, screen: float) -> Data:
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
    parts: dict[str, Result] = {
        "train": {"source": f"scenes:0+{judged.start if screen else train_scenes}"},
        "val": {"source": f"scenes:{judged.start}+{len(judged)}"},
    }
    return Data(_title("procedural scenes", screen), parts, judged)


def image_data(images: str, val: str | None, screen: float, out: str) -> Data:
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
    parts, skipped = splits(images, val)
    if "val" not in parts:
        raise Misuse(f"wanted images with labels to judge on, {images}: {'; '.join(skipped)}")
    if screen:
        train = parts["train"]
        low, high = train.get("share", (0, 1))
        cut = low + (high - low) * (1 - screen)
        parts = {"train": train | {"share": [low, cut]}, "val": train | {"share": [cut, high]}}
    return Data(_title(Path(images).resolve().name, screen), parts)


def _title(images: str, screen: float) -> str:
    """What the images are called, and whether a part of train stands for val."""
    return f"{images}, judged on {100 * screen:g} % of train held out" if screen else images


def label_counts(sets: dict[str, Result], labels: tuple[float, ...]) -> dict[float, int]:
    """How many images the shares of the training labels are, of those that suffice.

    Args:
        sets: results of the stages that build "train" and "val".
        labels: shares above 0 and up to 1.

    Raises:
        ShardError: The two sets have other classes; told before the training, not after it.
    """
    train, val = (shards.open(sets[part]["url"]) for part in ("train", "val"))
    if train.classes != val.classes:
        only = ", ".join(sorted({*train.classes} ^ {*val.classes})[:5])
        raise ShardError(f"wanted the same classes in train and val, only one of them has: {only}")
    by_class = np.bincount(train.labels)
    counts = {share: int(np.maximum(np.rint(share * by_class), 1).sum()) for share in labels}
    return {share: count for share, count in counts.items() if count >= LEAST_LABELS}


def asked_changes(**settings: Any) -> Result:
    """What was asked for of settings that are None where a protocol's stay.

    Raises:
        Misuse: Both steps and epochs are asked for.
    """
    asked = {name: value for name, value in settings.items() if value is not None}
    if {"steps", "epochs"} <= asked.keys():
        raise Misuse("wanted steps or epochs, got both")
    return asked


def regime_for(
    protocol: str,
    changes: Result,
    *,
    images: int,
    labels: tuple[float, ...],
    finetune_steps: int,
    trials: int,
) -> Regime:
    """The regime of a protocol of the pipeline, changed where something else was asked for.

    Args:
        protocol: a name in ``flows.pipeline.PROTOCOLS``.
        changes: what was asked for by name, ``steps`` or ``epochs`` among them.
        images: to train on.
        labels: shares of them whose labels are fine-tuned on.
        finetune_steps: of each fine-tuning, about, if the protocol is not the paper's.
        trials: fine-tunings of each run.
    """
    given: dict[str, Any] = {**PROTOCOLS[protocol]}
    if "epochs" in changes:
        given.pop("steps", None)
    given |= changes
    batch_size = min(given["batch_size"], images)
    in_paper = protocol == "paper"
    return Regime(
        encoder=given["encoder"],
        size=given["size"],
        hidden=given["hidden"],
        steps=given["steps"] if "steps" in given else given["epochs"] * (images // batch_size),
        batch_size=batch_size,
        warmup_share=0.05 if in_paper else 0.1,
        lr=given["lr"],
        momentum=given["momentum"],
        views=given["views"],
        labels=labels,
        finetune=given["finetune"],
        finetune_steps=None if in_paper else finetune_steps,
        trials=trials,
    )
