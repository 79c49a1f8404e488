"""Peers of a benchmark in processes of their own, which take steps when they are asked to.

So builds of one package can be interleaved, and the memory of each be told.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Peer:
    """A process at the other end of which is ``serve``.

    Args:
        script: of this checkout, that serves.
        *words: its arguments.
        root: checkout whose packages it imports.

    Attributes:
        memory: MiB that its largest step took beyond what there was before ``serve``.
    """

    def __init__(self, script: str, *words: str, root: Path = ROOT) -> None:
        environment = os.environ | {"PYTHONPATH": f"{root}:{ROOT}"}
        pipe = subprocess.PIPE
        command = [sys.executable, "-P", script, *words]
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=root
        )
        self(3)  # the first steps allocate

    def __call__(self, steps: int = 1) -> float:
        """Seconds that so many steps take."""
        requests, answers = self._process.stdin, self._process.stdout
        assert requests and answers  # noqa: PT018 (they are pipes)
        requests.write(f"{steps}\n")
        requests.flush()
        seconds, self.memory = map(float, answers.readline().split())
        return seconds

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def serve(step: Callable[[], None], memory_before: float) -> None:
    """Answer each number of steps by their seconds, and by the MiB of the largest so far.

    Args:
        step: takes one.
        memory_before: ``peak_memory`` before the networks were made.
    """
    for line in sys.stdin:
        began = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(time.perf_counter() - began, peak_memory() - memory_before, flush=True)


def peak_memory() -> float:
    """The most that this process has had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
