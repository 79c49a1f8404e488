"""One step of a training: losses of a batch, their gradients, the optimizer; in any precision."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any
import torch
from torch import Tensor
from care.errors import Diverged
from care.train.devices import widest_float
from care.train.precision import Precision, autocast, seeded

Losses = Callable[..., Mapping[str, Tensor]]
# a gradient that is not finite at this scale is so at any
SMALLEST_SCALE = 2.0**-20


class Stepper:
    """Takes an optimizer's steps: pure functions of weights, batch and (seed, step).

    Args:
        optimizer: of the parameters that the losses depend on; its gradients are None or 0.
        device: where the losses are computed.
        precision: of their arithmetic, by autocast; in float16 they are scaled.
        seed: of the random numbers that networks draw.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        precision: Precision,
        seed: int,
    ) -> None:
        self._optimizer = optimizer
        self._device = device
        self._seed = seed
        self.autocast = autocast(device, precision)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def take(self, step: int, losses: Losses, parts: Sequence[Sequence[Any]]) -> dict[str, float]:
        """Take one step, in float16 again and again, scaled less, until no gradient overflows.

        Args:
            step: its number, from 0 on.
            losses: scalars by name, of the arguments in a part. Minimised is their ``total``, or
                without one their sum.
            parts: what a batch is cut into; the mean over them counts.

        Returns:
            The losses' values by name, ``total`` last where it was not among them.

        Raises:
            Diverged: a loss is not finite, or the gradients are not, whatever the scale.
        """
        while True:
            with seeded(self._seed, step, self._device):
                terms = self._accumulate_gradients(losses, parts)
            if self.update(step, terms):
                return terms

    def _accumulate_gradients(
        self,
        losses: Losses,
        parts: Sequence[Sequence[Any]],
    ) -> dict[str, float]:
        """Sum up the gradients of all parts, and return the losses' means."""
        names: list[str] = []
        wide = widest_float(self._device)
        means = torch.zeros((), dtype=wide, device=self._device)
        for number, part in enumerate(parts, 1):
            is_last = number == len(parts)
            # gradients of all processes are averaged once, with the last part
            without_averaging = getattr(losses, "no_sync", nullcontext)
            averaging = nullcontext() if is_last else without_averaging()
            with averaging, self.autocast:
                terms = dict(losses(*part))
            if "total" not in terms:
                terms["total"] = torch.stack([*terms.values()]).sum()
            torch.autograd.backward(self.scaler.scale(terms["total"] / len(parts)))
            names = [*terms]
            values = torch.stack([value.detach().to(wide) for value in terms.values()])
            means = means + values / len(parts)
        return dict(zip(names, means.tolist(), strict=True))

    def update(self, step: int, terms: Mapping[str, float]) -> bool:
        """Move the weights by the gradients that are there, and forget these.

        Args:
            step: its number, for the message of an error.
            terms: the losses' values by name.

        Returns:
            False if float16 overflowed: the weights are as before, the scale is smaller.

        Raises:
            Diverged: a loss is not finite, or the gradients are not, whatever the scale.
        """
        for name, value in terms.items():
            if not math.isfinite(value):
                raise Diverged(
                    f"the {name} loss is {value} at step {step}; lower lr or lengthen warmup, "
                    "then start a new run directory"
                )
        scale_before = self.scaler.get_scale()
        is_first = not self._optimizer.state
        self.scaler.step(self._optimizer)
        self.scaler.update()
        self._optimizer.zero_grad()
        scale = self.scaler.get_scale()
        if scale < SMALLEST_SCALE:
            raise Diverged(
                f"the gradients are not finite at step {step}, whatever the loss scale; lower lr, "
                "or use --precision bf16"
            )
        overflowed = scale < scale_before
        if overflowed and is_first:
            # fused SGD has made its buffers, and left them as they were in memory
            self._optimizer.state.clear()
        return not overflowed
