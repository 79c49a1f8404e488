"""What runs on this machine, from /proc; and the command line as a process."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path

TINY = {
    "steps": 3,
    "batch_size": 8,
    "hidden": 16,
    "size": 32,
    "train_scenes": 32,
    "val_scenes": 16,
    "checkpoint_every": 2,
    "labels": (0.5,),
    "finetune_steps": 2,
    "detection_size": 32,
    "detection_iterations": 2,
    "segment_iterations": 2,
}


def table() -> dict[int, tuple[int, str]]:
    """Parent and command line of every process."""
    processes = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit():
                state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
                if state != "Z":
                    words = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                    processes[int(folder.name)] = (int(parent), words.decode(errors="replace"))
        except OSError:
            # it has ended
            continue
    return processes


def below(parent: int) -> dict[int, str]:
    """Command lines of a process's children, their children, …"""
    processes = table()
    descendants: dict[int, str] = {}
    waiting = [parent]
    while waiting:
        above = waiting.pop()
        children = {
            pid: line for pid, (its_parent, line) in processes.items() if its_parent == above
        }
        descendants |= children
        waiting += children
    return descendants


def care(*arguments: object, **settings) -> subprocess.Popen[str]:
    """`care` with arguments, in a session of its own.

    Args:
        *arguments: of the command line.
        **settings: of ``subprocess.Popen``.
    """
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, **defaults | settings, text=True, start_new_session=True)


def fork(work: Callable[..., None], *arguments: object) -> ForkProcess:
    """A fork of this process, which has imported everything, at work.

    It prints to its descriptors 1 and 2, whatever pytest made of the streams.
    """

    def work_with_plain_streams() -> None:
        # a command that ran in this process may have left its handler
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        work(*arguments)

    process = multiprocessing.get_context("fork").Process(target=work_with_plain_streams)
    process.start()
    return process


def until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.1)


def options(settings: dict[str, object]) -> list[str]:
    """Keyword arguments as options of the command line."""
    words = []
    for name, value in settings.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words += [f"--{name.replace('_', '-')}", text]
    return words


def environment(**variables: str) -> dict[str, str]:
    """The environment of a command of this working copy."""
    root = str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": root, "COLUMNS": "200"} | variables
