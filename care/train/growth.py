"""A run that is to be longer than it was begun: when it may be, and what its rate then does."""

from care.schedules import lr_at
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


def describe_growth(before: Settings, now: Settings, *, start: int) -> str:
    """What becomes of the learning rate where a run's length changes, in a sentence or two.

    Args:
        before: settings of the run.
        now: those that it goes on with.
        start: steps that are done.

    Returns:
        The text; "" where the length stays, the batch size does not, or nothing is done yet.
    """
    steps = now["steps"]
    steps_before = before.get("steps", steps)
    has_other_batches = before.get("batch_size") != now["batch_size"]
    if steps == steps_before or has_other_batches or not 0 < start < steps:
        return ""
    last_rate = _rate(start - 1, before)
    return (
        f"{steps_before:,} steps become {steps:,}: after {start:,} of them the learning rate goes "
        f"from {last_rate:.3g} to {_rate(start, now):.3g}, where a run of {steps:,} steps has it, "
        "and falls to 0 at the new end; the target's momentum follows likewise. The result is not "
        f"that of a run of {steps:,} steps from the start"
    )


def _rate(step: int, settings: Settings) -> float:
    """The learning rate of a step of a pre-training."""
    base = settings["lr"] * settings["batch_size"] / 256
    return lr_at(step, total=settings["steps"], base=base, warmup=settings["warmup"])
