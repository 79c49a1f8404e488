"""The machine that a training runs on: it decides how long a result takes, never what it is."""

from dataclasses import dataclass
from typing import Literal
from shards.bounds import NonNegativeInt, PositiveInt


@dataclass(frozen=True)
class Machine:
    """How a training uses the machine, of which nothing decides the result.

    Attributes:
        device: cuda, cpu, or mps of a Mac; by default cuda where there is one, else cpu.
        workers: processes that decode beside each that computes, by default what is best here;
            the result does not depend on it.
        checkpoint_every: steps between checkpoints.
        keep_every: steps between checkpoints that stay for good.
    """

    device: Literal["cuda", "cpu", "mps"] | None = None
    workers: NonNegativeInt | None = None
    checkpoint_every: PositiveInt = 500
    keep_every: NonNegativeInt = 0
