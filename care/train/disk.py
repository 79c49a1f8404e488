"""Whether a disk has room for the checkpoints of a training: told before its first step."""

import math
import shutil
from pathlib import Path
import torch
from torch import nn
from care.errors import CareError
from care.train.checkpoint import steps_in
from care.train.machine import Machine

# the newest two stay, the next one is written beside them
CHECKPOINTS_AT_ONCE = 3


def check_room(run: Path, size: int, machine: Machine, *, start: int, steps: int) -> None:
    """Refuse a training whose checkpoints the disk of its directory cannot hold.

    Args:
        run: local run directory.
        size: of one checkpoint, bytes.
        machine: says how often, and what stays for good.
        start: steps that are done.
        steps: length of the run.

    Raises:
        CareError: There is less room than the checkpoints take that are still to be written.
    """
    saves = math.ceil((steps - start) / machine.checkpoint_every)
    if saves <= 0:
        return
    here = len(steps_in(run / "checkpoints"))
    count = min(max(CHECKPOINTS_AT_ONCE - here, 1), saves)
    count += max(_kept_for_good(machine, start, steps) - CHECKPOINTS_AT_ONCE + 1, 0)
    free = shutil.disk_usage(run).free
    lacking = count * size - free
    if lacking > 0:
        raise CareError(
            f"wanted room for {count} checkpoints of {_gigabytes(size)} in {run}, got "
            f"{_gigabytes(free)} on its disk; free {_gigabytes(lacking)} more, keep fewer by "
            "--keep-every, or choose a run directory on another disk"
        )


def checkpoint_bytes(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """The size of one checkpoint of a training, but for names and settings, in bytes.

    Args:
        model: whose state is saved.
        optimizer: of its parameters. Adam and its relatives, which have two betas, keep two slots
            of each trained parameter; SGD and its relatives keep its momentum.
    """
    slots = 2 if "betas" in optimizer.defaults else 1
    of_state = sum(int(tensor.nbytes) for tensor in model.state_dict().values())
    trained = sum(int(weight.nbytes) for weight in model.parameters() if weight.requires_grad)
    return of_state + slots * trained


def _kept_for_good(machine: Machine, start: int, steps: int) -> int:
    """How many of the checkpoints that are still to be written stay for good."""
    if not machine.keep_every:
        return 0
    between = math.lcm(machine.keep_every, machine.checkpoint_every)
    return steps // between - start // between


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB"
