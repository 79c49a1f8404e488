"""How long a training took, and on what."""

import json
import math
import os
import platform
import re
import statistics
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
import torch
from shards import storage


class Timing(NamedTuple):
    """How long a training took, and on what its last step was taken.

    Attributes:
        seconds: of all steps, without the import of packages and the saving at the end.
        step_seconds: the median over the steps.
        hardware: the machine in a line.
    """

    seconds: float
    step_seconds: float
    hardware: str


def timing(out: str) -> Timing:
    """How long the training in a folder took, whatever stopped it in between.

    Its log has the seconds since its process began: they start anew where it was continued.

    Args:
        out: run directory, path or URL.
    """
    lines = storage.read_bytes(f"{out}/timing.jsonl").decode().splitlines()
    elapsed = [float(json.loads(line)["seconds"]) for line in lines]
    steps = [now - before for before, now in pairwise(elapsed) if now > before]
    began_anew = [now for before, now in pairwise([math.inf, *elapsed]) if now <= before]
    step_seconds = statistics.median(steps or elapsed)
    return Timing(round(sum(steps) + sum(began_anew), 3), round(step_seconds, 5), hardware())


def hardware() -> str:
    """The machine in a line: processor, its cores for this process, GPU where there is one."""
    cpu = platform.machine()
    with suppress(OSError):
        models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        cpu = models[0] if models else cpu
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{cpu}, {torch.get_num_threads()} of {os.cpu_count()} cores{gpu}"
