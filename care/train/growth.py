"""A run that is to be longer than it was begun: when it may be, and what its rate then does."""

from dataclasses import replace
from care.train.optimizers import Optimizer
from care.train.settings import Settings


def grows(before: Settings, *, steps: int, batch_size: int) -> bool:
    """Whether a call asks for nothing but more steps of what a run does.

    Args:
        before: settings of the run, none where there is no run.
        steps: of this call.
        batch_size: of this call.
    """
    has_batches = before.get("batch_size") == batch_size
    return has_batches and before.get("steps", steps) < steps


def describe_growth(before: Settings, now: Settings, optimizer: Optimizer, *, start: int) -> str:
    """What becomes of the learning rate where a run's length changes, in a sentence or two.

    Args:
        before: settings of the run.
        now: those that it goes on with.
        optimizer: that it goes on with.
        start: steps that are done.

    Returns:
        The text; "" where the length stays, the batch size does not, or nothing is done yet.
    """
    steps = now["steps"]
    steps_before = before.get("steps", steps)
    has_other_batches = before.get("batch_size") != now["batch_size"]
    if steps == steps_before or has_other_batches or not 0 < start < steps:
        return ""
    of_run = replace(optimizer, lr=before["lr"], warmup=before["warmup"])
    last_rate = _rate(start - 1, before, of_run)
    first_rate = _rate(start, now, optimizer)
    return (
        f"{steps_before:,} steps become {steps:,}: after {start:,} of them the learning rate goes "
        f"from {last_rate:.3g} to {first_rate:.3g}, where a run of {steps:,} steps has it, "
        f"and falls to {_rate(steps, now, optimizer):.3g} at the new end; the target's momentum "
        f"follows likewise. The result is not that of a run of {steps:,} steps from the start"
    )


def _rate(step: int, settings: Settings, optimizer: Optimizer) -> float:
    """The learning rate of a step of a pre-training."""
    base = optimizer.lr * settings["batch_size"] / 256
    return optimizer.rate(step, total=settings["steps"], base=base)
