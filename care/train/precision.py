"""The precision of the networks' arithmetic: what a device computes, and how it is entered.

Nothing here knows of streams: evaluations, which depend on this room, do not depend on those.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple
import numpy as np
import torch
from torch import Tensor
from care.train import ranks
from care.train.mirror import recorded_settings

Precision = Literal["bf16", "fp16", "fp32"]


class StreamPrecisions(NamedTuple):
    """Precision of each stream's arithmetic.

    Attributes:
        c: of the C-stream.
        t: of the T-stream.
    """

    c: Precision
    t: Precision


def fastest_precision(device: torch.device) -> Precision:
    """What the hardware computes natively, for large networks.

    Args:
        device: where the network computes.

    Returns:
        bfloat16 where the hardware has it (emulated it is slower than float32), else float16 on
        CUDA and float32 on a CPU.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if native else "fp16"
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return "bf16" if capabilities.get("avx512_bf16") else "fp32"


def can_compute(device: torch.device, precision: Precision) -> bool:
    """Whether a training in a precision may go on here.

    Args:
        device: where the network computes.
        precision: of a run that another machine began.

    Returns:
        False for float16 on a CPU, which takes minutes for a step where it is emulated; the
        emulation of bfloat16 is only slower than float32.
    """
    if precision == "fp16" and device.type == "cpu":
        return bool(torch.cpu.get_capabilities().get("avx512_fp16"))
    return True


def continued_precision(
    run: str | Path,
    precision: Precision | None,
    device: torch.device,
) -> Precision:
    """The precision of a training that has one: as asked for, as the run began, or the native one.

    Args:
        run: run directory or URL, perhaps of a run that another machine began.
        precision: by the user.
        device: where the network computes.
    """
    if precision:
        return precision
    recorded = recorded_settings(run)
    if recorded is not None and can_compute(device, recorded["precision"]):
        of_run: Precision = recorded["precision"]
        return of_run
    return fastest_precision(device)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context in which networks on a device compute in a precision."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


@contextmanager
def stream_precision(
    device: torch.device,
    precision: Precision | None,
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Compute in a precision of one's own, whatever the surrounding autocast's is.

    Args:
        device: where the network computes.
        precision: "fp32" leaves a surrounding autocast, anything else begins one where there is
            none; None stays as it is.

    Yields:
        What to apply to a tensor that comes from outside: it is of the other precision.
    """
    surrounded = torch.is_autocast_enabled(device.type)
    if precision == "fp32" and surrounded:
        with torch.autocast(device.type, enabled=False):
            yield lambda tensor: tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    elif precision in ("bf16", "fp16") and not surrounded:
        with autocast(device, precision):
            yield lambda tensor: tensor
    else:
        yield lambda tensor: tensor


@contextmanager
def seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators for a step, and put them back after the block.

    Dropout, stochastic depth and torchvision's samplers draw from them: so what they draw is a
    pure function of (seed, step, process).

    Args:
        seed: of the training.
        step: its number.
        device: where the network computes.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        numbers = np.random.default_rng((seed, step, ranks.rank()))
        torch.manual_seed(int(numbers.integers(2**63)))
        yield
