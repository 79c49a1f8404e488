"""What runs on this machine, from /proc; and the command line as a process."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
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
}


def table() -> dict[int, tuple[int, str]]:
    """Parent and command line of every process."""
    found = {}
    for pid in Path("/proc").iterdir():
        try:
            if pid.name.isdigit():
                fields = (pid / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    found[int(pid.name)] = (
                        int(fields[1]),
                        (pid / "cmdline")
                        .read_bytes()
                        .replace(b"\0", b" ")
                        .decode(errors="replace"),
                    )
        except OSError:
            continue
    return found


def below(parent: int) -> dict[int, str]:
    """Command lines of a process's children, their children, …"""
    all_of_them, found, seen = table(), {}, [parent]
    while seen:
        one = seen.pop()
        mine = {pid: line for pid, (above, line) in all_of_them.items() if above == one}
        found |= mine
        seen += mine
    return found


def care(*arguments: object, **more) -> subprocess.Popen[str]:
    """`care` with arguments, in a session of its own."""
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    more = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        "start_new_session": True,
    } | more
    return subprocess.Popen(command, **more)


def until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.1)


def options(settings: dict[str, object]) -> list[str]:
    """Keyword arguments as options of the command line."""
    words = [("--" + name.replace("_", "-"), value) for name, value in settings.items()]
    return [
        text
        for name, value in words
        for text in (name, ",".join(map(str, value)) if isinstance(value, tuple) else str(value))
    ]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200"} | more
