"""The device that a network computes on, by name, and what one has that another lacks."""

import ctypes
import torch
from care.errors import CareError

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def torch_device(name: str | None = None) -> torch.device:
    """The device of a name, or without one CUDA's where there is one, else the CPU.

    Raises:
        CareError: One is wanted that is not there.
    """
    if name == "mps" and not torch.backends.mps.is_available():
        raise CareError(
            f"wanted the device mps, got none that torch {torch.__version__} can use here; it is"
            " that of Macs with Apple silicon; leave --device out for the CPU"
        )
    if name is not None and name.startswith("cuda") and not torch.cuda.is_available():
        raise CareError(
            f"wanted the device {name}, got none that torch {torch.__version__} can use here; leave"
            " --device out for the CPU, or see whether nvidia-smi lists a GPU and torch is built"
            " for CUDA"
        )
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def widest_float(device: torch.device) -> torch.dtype:
    """The floats of a device that have the most digits: a Mac's GPU has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


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
