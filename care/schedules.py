"""Learning rate and momentum as pure functions of the step (Sec. 4.1: base 0.05 · batch / 256 and 10 epochs of warm-up)."""

from math import cos, pi


def lr_at(step: int, *, total: int, base: float, warmup: int = 0, start: float = 1e-6) -> float:
    """Learning rate of 0-based ``step``: linear from ``start`` to ``base`` in ``warmup`` steps, then cosine to 0 at ``total``."""
    if step < warmup:
        return start + (base - start) * step / warmup
    return base * (1 + cos(pi * min((step - warmup) / max(total - warmup, 1), 1))) / 2


def momentum_at(step: int, *, total: int, base: float = 0.99) -> float:
    """Momentum coefficient τ = 1 − (1 − base)·(cos(π·step/total) + 1)/2: from ``base`` to 1."""
    return 1 - (1 - base) * (cos(pi * min(step / total, 1)) + 1) / 2
