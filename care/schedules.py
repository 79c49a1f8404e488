"""Learning rate and momentum as pure functions of the step (Secs. 3.3 and 4.1).

Nothing here has a state: a run that goes on after an interruption computes the same values again.
"""

from collections.abc import Sequence
from math import cos, pi


def lr_at(
    step: int,
    *,
    total: int,
    base: float,
    warmup: int = 0,
    start: float = 1e-6,
    final: float = 0.0,
) -> float:
    """Learning rate of a step: a linear warm-up, then a cosine to 0.

    The paper's base is 0.05 · batch / 256, its warm-up takes ten epochs.

    Args:
        step: counted from 0.
        total: steps of the training; beyond them the rate is ``final``.
        base: the rate after the warm-up, from which the cosine begins.
        warmup: steps of the warm-up, part of ``total``.
        start: the rate of step 0 where there is a warm-up; 1e-6 is the released code's.
        final: the rate that the cosine ends at.

    Source: Sec. 4.1; released code.
    """
    if step < warmup:
        return _warming_lr(step, base=base, warmup=warmup, start=start)
    progress = min((step - warmup) / max(total - warmup, 1), 1)
    return final + (base - final) * (1 + cos(pi * progress)) / 2


def dropped_lr_at(
    step: int,
    *,
    total: int,
    base: float,
    drops: Sequence[float],
    warmup: int = 0,
    start: float = 1e-6,
) -> float:
    """Learning rate of a step that falls to a tenth at some points of a training.

    Args:
        step: counted from 0.
        total: steps of the training.
        base: the rate after the warm-up.
        drops: shares of the training after each of which the rate is a tenth of what it was.
        warmup: steps of the warm-up, part of ``total``.
        start: the rate of step 0 where there is a warm-up.

    Source: MoCo v1, whose rate falls after 120 and 160 of 200 epochs.
    """
    if step < warmup:
        return _warming_lr(step, base=base, warmup=warmup, start=start)
    passed = sum(step >= round(share * total) for share in drops)
    return base / 10.0**passed


def _warming_lr(step: int, *, base: float, warmup: int, start: float) -> float:
    return start + (base - start) * step / warmup


def momentum_at(step: int, *, total: int, base: float = 0.99, rises: bool = True) -> float:
    """Momentum coefficient τ of a step: from ``base`` to 1, by half a cosine.

    τ = 1 − (1 − base) · (cos(π · step / total) + 1) / 2

    Args:
        step: the update's. Here it follows the optimizer's step, so that it is given ``step + 1``;
            the released code updates before the forward pass, with the step itself.
        total: steps of the training; beyond them the target stands still.
        base: of step 0; 0.99 is the paper's.
        rises: whether it does; that of MoCo v1 and v2 stays at ``base``.

    Source: Sec. 3.3, as in BYOL.
    """
    if not rises:
        return base
    progress = min(step / total, 1)
    return 1 - (1 - base) * (cos(pi * progress) + 1) / 2
