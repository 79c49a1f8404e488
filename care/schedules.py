"""Learning rate and momentum as pure functions of the step (Sec. 4.1)."""

from math import cos, pi


def lr_at(step: int, *, total: int, base: float, warmup: int = 0, start: float = 1e-6) -> float:
    """Rate of 0-based ``step``: ``warmup`` from ``start`` to ``base`` (0.05 · batch / 256), then cosine to 0 at ``total`` (Sec. 4.1)."""
    if step < warmup:
        return start + (base - start) * step / warmup
    return base * (1 + cos(pi * min((step - warmup) / max(total - warmup, 1), 1))) / 2


def momentum_at(step: int, *, total: int, base: float = 0.99) -> float:
    """Momentum coefficient τ = 1 − (1 − base)·(cos(π·step/total) + 1)/2: from ``base`` to 1."""
    return 1 - (1 - base) * (cos(pi * min(step / total, 1)) + 1) / 2
