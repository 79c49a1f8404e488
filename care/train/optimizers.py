"""Optimizers of a pre-training: values that make torch's optimizer of named parameters.

One says which parameters form a group, which rate each group has at a step, and whose update is
taken: torch's own for SGD and AdamW, timm's for LARS and LARC.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar
import torch
from torch import nn
from care.errors import CareError
from care.schedules import dropped_lr_at, lr_at
from care.train.settings import PLAIN_OPTIMIZER
from shards.bounds import NonNegativeFloat, NonNegativeInt

NamedParameters = Iterable[tuple[str, nn.Parameter]]
# of the gradients, in the paper's trainings and in those of its evaluations
MOMENTUM = 0.9
# by which LARS multiplies the ratio of norms: of its paper and of all recipes that are cited here
TRUST = 0.001
# below it no warm-up begins: the released code's
LOWEST_START = 1e-6
# what the command line has options for, each a setting of its own in a run
_PLAIN_FIELDS = ("lr", "warmup", "weight_decay")


@dataclass(frozen=True)
class Schedule:
    """How learning rates go through a training, in shares of a base rate and of its length.

    The default is the paper's: from 1e-6 to the base, then by a cosine to 0.

    Attributes:
        start: share of the base at which the warm-up begins; the rate is never below 1e-6 there.
            SwAV's is a sixteenth.
        final: share of the base that the cosine ends at; SwAV's and Barlow Twins' is 0.001.
        drops: shares of the training after each of which the rate is a tenth of what it was, in
            place of the cosine; MoCo v1's are 0.6 and 0.8.
        constant: beginnings of the dotted names of parameters whose rate is the base throughout;
            SimSiam's are its predictor's, ``c.predictor``.
    """

    start: float = 0.0
    final: float = 0.0
    drops: tuple[float, ...] = ()
    constant: tuple[str, ...] = ()

    def rate(self, step: int, *, total: int, base: float, warmup: int) -> float:
        """Learning rate of a step for what is not ``constant``.

        Args:
            step: counted from 0.
            total: steps of the training.
            base: the rate after the warm-up.
            warmup: steps of the warm-up, part of ``total``.
        """
        start = max(self.start * base, LOWEST_START)
        if self.drops:
            return dropped_lr_at(
                step, total=total, base=base, drops=self.drops, warmup=warmup, start=start
            )
        return lr_at(
            step, total=total, base=base, warmup=warmup, start=start, final=self.final * base
        )

    def is_constant(self, name: str) -> bool:
        """Whether the parameter of a dotted name has the base rate throughout."""
        return any(f"{name}.".startswith(f"{beginning}.") for beginning in self.constant)


@dataclass(frozen=True)
class Optimizer:
    """An optimizer of a pre-training, to be subclassed for one of your own.

    The defaults are the paper's (Sec. 4.1). What it keeps of a parameter from step to step is
    in the ``state`` of torch's optimizer, which checkpoints hold; they hold nothing of its groups.

    Attributes:
        lr: base learning rate for 256 images, scaled by batch_size / 256.
        warmup: steps of linear warm-up (the paper: 10 epochs).
        weight_decay: on every parameter, as in the released code.
    """

    lr: NonNegativeFloat = 0.05
    warmup: NonNegativeInt = 0
    weight_decay: NonNegativeFloat = 1e-4

    def build(self, parameters: NamedParameters) -> torch.optim.Optimizer:
        """Make torch's optimizer.

        Its groups may have a ``base`` of their own, the rate for 256 images, and be ``constant``.
        The last group's rate is the one that a run logs.

        Args:
            parameters: those that are trained, with their dotted names in the training's model,
                such as ``c.predictor.0.weight``.
        """
        raise NotImplementedError

    def rate(self, step: int, *, total: int, base: float) -> float:
        """Learning rate of a step for groups that are not constant.

        Args:
            step: counted from 0.
            total: steps of the training.
            base: the rate after the warm-up, for the batch as it is.
        """
        return lr_at(step, total=total, base=base, warmup=self.warmup)


@dataclass(frozen=True)
class GroupedOptimizer(Optimizer):
    """What the optimizers of this package share: groups of parameters, and a schedule.

    Attributes:
        weights_only: weight decay, and LARS' adaptation, are for weights alone, not for biases and
            the scales and shifts of norms, which have one dimension.
        vector_lr: base learning rate of those for 256 images; by default the same as all others'.
        schedule: of the learning rates.
    """

    weights_only: bool = False
    vector_lr: NonNegativeFloat | None = None
    schedule: Schedule = Schedule()
    # options of torch's optimizer in groups of weights, and in those without decay
    adapted: ClassVar[dict[str, Any]] = {}
    unadapted: ClassVar[dict[str, Any]] = {}

    def rate(self, step: int, *, total: int, base: float) -> float:
        """Learning rate of a step, by the schedule."""
        return self.schedule.rate(step, total=total, base=base, warmup=self.warmup)

    def groups(self, parameters: NamedParameters) -> list[dict[str, Any]]:
        """Sort parameters into groups, as torch's optimizers take them.

        Args:
            parameters: with their dotted names.

        Returns:
            Groups of equal rate and decay. The last one is that of the weights whose rate follows
            the schedule, in the parameters' order.
        """
        by_kind: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        tells_vectors = self.weights_only or self.vector_lr is not None
        for name, parameter in parameters:
            is_vector = tells_vectors and parameter.ndim <= 1
            kind = (self.schedule.is_constant(name), is_vector)
            by_kind.setdefault(kind, []).append(parameter)
        return [
            self._group(by_kind[is_constant, is_vector], is_constant, is_vector)
            for is_constant, is_vector in sorted(by_kind, reverse=True)
        ]

    def _group(
        self, parameters: list[nn.Parameter], is_constant: bool, is_vector: bool
    ) -> dict[str, Any]:
        """One of the groups, with the options in which it differs from others."""
        is_exempt = is_vector and self.weights_only
        has_own_rate = is_vector and self.vector_lr is not None
        return {
            "params": parameters,
            "base": self.vector_lr if has_own_rate else self.lr,
            "constant": is_constant,
            "weight_decay": 0.0 if is_exempt else self.weight_decay,
            **(self.unadapted if is_exempt else self.adapted),
        }


@dataclass(frozen=True)
class SGD(GroupedOptimizer):
    """Stochastic gradient descent with momentum 0.9, torch's, one update for all parameters.

    The defaults are the paper's (Sec. 4.1).
    """

    def build(self, parameters: NamedParameters) -> torch.optim.SGD:
        """Make torch's SGD."""
        return torch.optim.SGD(
            self.groups(parameters),
            lr=self.lr,
            momentum=MOMENTUM,
            weight_decay=self.weight_decay,
            fused=True,
        )


@dataclass(frozen=True)
class AdamW(GroupedOptimizer):
    """Adam with decoupled weight decay, torch's, one update for all parameters.

    The defaults are MoCo v3's for ViT, which decays every parameter.

    Source: Chen, Xie and He 2021, An empirical study of training self-supervised ViTs; its code.
    """

    lr: NonNegativeFloat = 1.5e-4
    weight_decay: NonNegativeFloat = 0.1

    def build(self, parameters: NamedParameters) -> torch.optim.AdamW:
        """Make torch's AdamW, with its momenta of 0.9 and 0.999."""
        return torch.optim.AdamW(
            self.groups(parameters), lr=self.lr, weight_decay=self.weight_decay, fused=True
        )


@dataclass(frozen=True)
class LARS(GroupedOptimizer):
    """SGD whose steps are scaled, for each weight, by the norms of it and of its gradient; timm's.

    A weight w with gradient g and decay β goes along (g + β·w) · 0.001·‖w‖ / (‖g‖ + β·‖w‖), by
    SGD with momentum 0.9. The authors of BYOL and MoCo v3 divide by ‖g + β·w‖, which is the same
    but for a share of at most β·‖w‖ / ‖g‖; their β is 1e-6. Biases and norms are neither scaled
    nor decayed. The default rate is BYOL's for 100 epochs.

    Source: You, Gitman and Ginsburg 2017; Grill et al. 2020 (BYOL), and its code; timm's ``Lars``.
    """

    lr: NonNegativeFloat = 0.45
    weight_decay: NonNegativeFloat = 1e-6
    weights_only: bool = True
    adapted: ClassVar[dict[str, Any]] = {"always_adapt": True}
    unadapted: ClassVar[dict[str, Any]] = {"always_adapt": False}

    def build(self, parameters: NamedParameters) -> torch.optim.Optimizer:
        """Make timm's Lars.

        Raises:
            CareError: timm is not installed.
        """
        optimizer: torch.optim.Optimizer = _timm_lars()(
            self.groups(parameters), lr=self.lr, momentum=MOMENTUM, trust_coeff=TRUST
        )
        return optimizer


@dataclass(frozen=True)
class LARC(LARS):
    """LARS on every parameter, biases and norms among them, as SwAV has it.

    It is apex' LARC without its clipping, as SwAV's code calls it. The default rate is SwAV's at a
    batch of 4,096; at 256 theirs is 0.6.

    Source: Caron et al. 2020 (SwAV), App. A; its code.
    """

    lr: NonNegativeFloat = 0.3
    weights_only: bool = False


OPTIMIZERS: dict[str, type[GroupedOptimizer]] = {
    "sgd": SGD,
    "lars": LARS,
    "larc": LARC,
    "adamw": AdamW,
}


def set_rates(
    torch_optimizer: torch.optim.Optimizer,
    optimizer: Optimizer,
    step: int,
    *,
    total: int,
    batch_size: int,
) -> None:
    """Set the learning rate of every group for the next step.

    Args:
        torch_optimizer: what ``optimizer`` has built.
        optimizer: whose rates they are.
        step: counted from 0.
        total: steps of the training.
        batch_size: images a step, on all processes together.
    """
    for group in torch_optimizer.param_groups:
        base = group.get("base", optimizer.lr) * batch_size / 256
        is_constant = group.get("constant", False)
        group["lr"] = base if is_constant else optimizer.rate(step, total=total, base=base)


def optimizer_settings(optimizer: Optimizer) -> dict[str, Any]:
    """What of an optimizer decides a training's result, as a run records it.

    Rate, warm-up and decay are settings of their own. All else is one text, the optimizer's name
    and what differs from its defaults; plain SGD, which runs began with before there was a choice,
    has none.
    """
    settings = {name: getattr(optimizer, name) for name in _PLAIN_FIELDS}
    parts = [type(optimizer).__name__.lower()]
    for field in fields(optimizer):
        value = getattr(optimizer, field.name)
        if field.name not in _PLAIN_FIELDS and value != field.default:
            parts.append(f"{field.name}={value!r}")
    text = " ".join(parts)
    return settings if text == PLAIN_OPTIMIZER else settings | {"optimizer": text}


def _timm_lars() -> Any:
    """The class of timm's optimizer."""
    try:
        from timm.optim.lars import Lars
    except ImportError:
        raise CareError(
            "LARS and LARC are timm's, which is not installed; pip install 'care-ssl[timm]', or "
            "take sgd or adamw"
        ) from None
    return Lars
