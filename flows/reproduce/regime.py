"""The regime of a grid: how every run is trained and judged, whatever its arm."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args
from flows.protocols import PROTOCOLS, Protocol, ProtocolName
from flows.recipes import OptimizerName, RecipeChanges
from flows.reproduce.arms import Arm
from flows.result import Result
from shards.bounds import (
    BatchSize,
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from shards.errors import Misuse
from shards.image_size import ImageSize, image_size


@dataclass(frozen=True)
class RegimeChoice:
    """What was asked for: a protocol of the pipeline, and settings that replace its own.

    Attributes:
        protocol: quick, the default for scenes, photos, that for images, or the paper's.
        encoder: a name as for care pretrain; by default that of the protocol, like what follows.
        size: of the views and of the evaluations' crops, pixels, or height and width such as
            96x192.
        hidden: hidden width of projectors and predictors (the paper 4096).
        steps: pre-training steps.
        epochs: passes over the images to train on, instead of steps.
        batch_size: images a step, at most the training set.
        lr: base learning rate for 256 images.
        momentum: first momentum coefficient of the targets.
        optimizer: by name, sgd, lars, larc or adamw; by default that of each objective's recipe.
            What of lr, momentum, hidden and this is asked for is every arm's, whatever its recipe
            says.
        small_crops: beside the two views of the arms of swav, of 96 px where these have 224; by
            default those of its recipe, of swav none, of swav-256 six.
    """

    protocol: ProtocolName | None = None
    encoder: str | None = None
    size: ImageSize | None = None
    hidden: PositiveInt | None = None
    steps: PositiveInt | None = None
    epochs: PositiveInt | None = None
    batch_size: BatchSize | None = None
    lr: PositiveFloat | None = None
    momentum: Fraction | None = None
    optimizer: OptimizerName | None = None
    small_crops: NonNegativeInt | None = None

    @property
    def recipe_changes(self) -> RecipeChanges:
        """What of the objectives' recipes was asked for otherwise."""
        return RecipeChanges(self.optimizer, self.lr, self.momentum, self.hidden, self.small_crops)

    def check(self) -> None:
        """Refuse, before anything starts, what contradicts itself.

        Raises:
            Misuse: Both steps and epochs are asked for.
        """
        if self.steps is not None and self.epochs is not None:
            raise Misuse("wanted steps or epochs, got both")

    def over(self, protocol: Protocol) -> Protocol:
        """The protocol, changed where something else was asked for."""
        changes = {name: value for name, value in asdict(self).items() if value is not None}
        changes.pop("protocol", None)
        # plain SGD is a protocol's; what else is asked for is in the recipes' inputs
        changes.pop("optimizer", None)
        if self.size is not None:
            changes["size"] = image_size(self.size)
        changes.pop("small_crops", None)
        if self.epochs is not None:
            changes["steps"] = None
        return replace(protocol, **changes)


@dataclass(frozen=True)
class FewLabels:
    """Fine-tuning on few labels.

    Attributes:
        labels: shares of the training labels to fine-tune on.
        finetune_steps: steps of each fine-tuning, about, if the protocol is not the paper's.
        trials: fine-tunings of each run, whose mean counts.
    """

    labels: tuple[float, ...] = (0.01, 0.1)
    finetune_steps: PositiveInt = 50
    trials: PositiveInt = 1

    def check(self) -> None:
        """Refuse, before anything starts, what cannot be done.

        Raises:
            Misuse: A share of the labels is none.
        """
        for share in self.labels:
            if not 0 < share <= 1:
                raise Misuse(f"wanted shares of the labels above 0 and up to 1, got {share:g}")


EvaluationName = Literal["knn", "linear", "finetune", "attention", "localisation"]
EVALUATION_NAMES: tuple[str, ...] = get_args(EvaluationName)
# which need masks, and so procedural scenes
OF_MASKS = ("attention", "localisation")


@dataclass(frozen=True)
class Judging:
    """By what runs are judged.

    Attributes:
        evaluations: of knn, linear, finetune and, on procedural scenes, attention and localisation;
            by default all.
    """

    evaluations: tuple[str, ...] = EVALUATION_NAMES

    def check(self) -> None:
        """Refuse, before anything starts, what is the name of no evaluation, and none at all.

        Raises:
            Misuse: It is so; the message lists the names that there are.
        """
        unknown = [name for name in self.evaluations if name not in EVALUATION_NAMES]
        if unknown or not self.evaluations:
            wanted = f"wanted evaluations of {', '.join(EVALUATION_NAMES)}"
            raise Misuse(f"{wanted}; got {', '.join(unknown) or 'none'}")

    def possible(self, *, has_masks: bool, has_few_labels: bool) -> tuple[str, ...]:
        """Those that the images allow.

        Args:
            has_masks: whether the images are procedural scenes.
            has_few_labels: whether a share of the labels suffices to be fine-tuned on.

        Raises:
            Misuse: There are none.
        """
        names = list(self.evaluations)
        if not has_masks:
            names = [name for name in names if name not in OF_MASKS]
        if not has_few_labels:
            names = [name for name in names if name != "finetune"]
        if not names:
            wanted = "wanted an evaluation that these images allow, such as knn or linear"
            raise Misuse(f"{wanted}; got {', '.join(self.evaluations)}")
        return tuple(names)


@dataclass(frozen=True)
class Regime:
    """How every run is trained and judged, whatever its arm.

    Attributes:
        encoder: a name for ``care.build_encoder``, without a tap.
        size: of views and of the evaluations' crops, pixels.
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
    size: ImageSize
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

    def arm_steps(self, arm: Arm, share: float) -> int:
        """How long an arm is trained.

        Args:
            arm: which is trained, or not.
            share: times the steps of the others.
        """
        return max(round(self.steps * share), 1) if arm.trained else 0

    def training(self, arm: Arm, seed: int, steps: int) -> Result:
        """What the stage that pre-trains is given, but the set and the machine's part.

        The same names and values as ``care pipeline`` gives it: equal trainings are shared.

        Args:
            arm: to be trained.
            seed: of weights, order and views.
            steps: to train for.
        """
        return {
            "encoder": arm.encoder(self.encoder),
            "size": self.size,
            "hidden": self.hidden,
            "views": self.views,
            "seed": seed,
            "steps": steps,
            "batch_size": self.batch_size,
            "warmup": int(steps * self.warmup_share),
            "lr": self.lr,
            "momentum": self.momentum,
            **arm.stage_inputs(),
        }

    def tuning(self, share: float, count: int) -> Result:
        """What fine-tuning on a share of the labels is given beside the sets.

        Args:
            share: of the training labels.
            count: images that these are.
        """
        settings: Result = {"verb": "finetune", "size": self.size, "fraction": share}
        settings |= {"trials": self.trials, **self.finetune}
        if self.finetune_steps is None:
            return settings
        epochs = round(self.finetune_steps * min(self.finetune["batch_size"], count) / count)
        return settings | {"epochs": [max(epochs, 1)]}


def regime_for(
    choice: RegimeChoice,
    few_labels: FewLabels,
    *,
    default_protocol: ProtocolName,
    images: int,
) -> Regime:
    """The regime that was asked for.

    Args:
        choice: what was asked for.
        few_labels: how runs are fine-tuned.
        default_protocol: where none was asked for.
        images: to train on.
    """
    protocol = choice.over(PROTOCOLS[choice.protocol or default_protocol])
    batch_size = min(protocol.batch_size, images)
    return Regime(
        encoder=protocol.encoder,
        size=protocol.size,
        hidden=protocol.hidden,
        steps=protocol.steps or (protocol.epochs or 0) * (images // batch_size),
        batch_size=batch_size,
        warmup_share=1 / protocol.warmup_divisor,
        lr=protocol.lr,
        momentum=protocol.momentum,
        views=protocol.views,
        labels=few_labels.labels,
        finetune=protocol.evaluations["finetune"],
        finetune_steps=few_labels.finetune_steps if protocol.short_finetuning else None,
        trials=few_labels.trials,
    )


def skipped_shares(labels: Iterable[float], counts: dict[float, int]) -> list[str]:
    """In words, the shares of the labels of which too few images are left to be tuned on.

    Args:
        labels: shares that were asked for.
        counts: images of those that suffice.
    """
    few = [share for share in labels if share not in counts]
    return [f"{100 * share:g} % of the labels: too few to hold one out" for share in few]
