"""Probes: what judges the encoder of a training on its way, and how often."""

from collections.abc import Callable, Iterable
from typing import NamedTuple
from torch import nn
from care.encoded import evaluating
from care.encoders import Encoder

# numbers by name, of an encoder in eval mode that is left as it is
Probe = Callable[[Encoder], dict[str, float]]


class TimedProbe(NamedTuple):
    """A probe and when it is due.

    Attributes:
        probe: what judges.
        every: steps between two times; 0 is never.
    """

    probe: Probe
    every: int

    def is_due(self, step: int) -> bool:
        """Whether it judges after a step, which is counted from 0 on."""
        return self.every > 0 and (step + 1) % self.every == 0


def judge_on_the_way(
    encoder: nn.Module, step: int, probes: Iterable[TimedProbe]
) -> dict[str, float]:
    """The numbers of those probes that are due.

    Args:
        encoder: that is trained; it is judged in eval mode.
        step: that was taken, from 0 on.
        probes: in the order of their numbers.
    """
    numbers = dict[str, float]()
    for timed in probes:
        if timed.is_due(step):
            with evaluating(encoder):
                numbers |= timed.probe(encoder)  # type: ignore[arg-type]
    return numbers
