"""The machine that a training runs on: it decides how long a result takes, never what it is."""

import ctypes
from dataclasses import dataclass
from typing import Literal
import torch
from care.errors import CareError
from shards.bounds import NonNegativeInt, PositiveInt

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


@dataclass(frozen=True)
class Machine:
    """How a training uses the machine, of which nothing decides the result.

    Attributes:
        device: cuda or cpu; by default what there is.
        workers: processes that decode beside each that computes, by default what is best here;
            the result does not depend on it.
        checkpoint_every: steps between checkpoints.
        keep_every: steps between checkpoints that stay for good.
    """

    device: Literal["cuda", "cpu"] | None = None
    workers: NonNegativeInt | None = None
    checkpoint_every: PositiveInt = 500
    keep_every: NonNegativeInt = 0


def torch_device(name: str | None = None) -> torch.device:
    """The device of a name, or without one CUDA's where there is one, else the CPU.

    Raises:
        CareError: CUDA is wanted and there is none.
    """
    if name is not None and name.startswith("cuda") and not torch.cuda.is_available():
        raise CareError(
            f"wanted the device {name}, got none that torch {torch.__version__} can use here; leave"
            " --device out for the CPU, or see whether nvidia-smi lists a GPU and torch is built"
            " for CUDA"
        )
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def keep_freed_memory(device: torch.device) -> None:
    """Have the C library keep the memory of a CPU's freed tensors for the next ones.

    Returning and faulting in every large tensor again takes a tenth of a step. All comes from the
    heap, whose end is kept. Only glibc can be told so; with others nothing happens.
    """
    if device.type != "cpu":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
