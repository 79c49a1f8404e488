"""Processes of stages, followed: what they print is told, one that dies, hangs or loses its store is tried again, a stop saves them all."""

import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from flows import environment
from shards.cores import available_cores, cores_per_process
from shards.errors import Failure, Misuse, Stopped
from shards.progress import console

PAUSES = (2.0, 10.0, 30.0)  # seconds before a stage is tried again
GRACE = 60.0  # seconds to save in, between SIGTERM and SIGKILL
MOST_JOBS = 4  # stages at a time on a machine without a GPU
OUTCOME = "\x1e"  # begins the lines that flows.child writes for us: JSON pairs of how it ended and what it said
AGAIN = {
    "stopped",
    "died",
    "hung",
    "store",
}  # what another attempt may mend; nobody asked that process to stop


class Children:
    """The processes of one run, until ``stop``.

    Args:
        jobs: stages at a time, each with its share of the CPU's cores; 0: one a GPU, or else one a
            core, at most ``MOST_JOBS``.
        stall: seconds without a line of a process after which it is taken for hung.
    """

    def __init__(self, jobs: int = 0, stall: float = 3600) -> None:
        self._jobs, self._stall, self._lock, self._stop = (
            jobs,
            stall,
            threading.Lock(),
            threading.Event(),
        )
        self._pids, self._slots = set[int](), queue.SimpleQueue[dict[str, str]]()
        self._start()  # it needs seconds, which the caller has other things to do for
        self._counted, self._gpus, self._jobs_at_a_time = False, 0, 0

    def _start(self) -> None:
        self._connection, other = socket.socketpair()
        variables = os.environ | {
            environment.PROGRESS_SECONDS: "1" if console.is_terminal else "10"
        }
        command = [sys.executable, "-m", "flows.child", str(other.fileno())]
        self._origin = subprocess.Popen(
            command, pass_fds=[other.fileno()], stdin=subprocess.DEVNULL, env=variables
        )
        other.close()

    def stop(self) -> None:
        """Have those that are left save themselves, or after ``GRACE`` seconds killed."""
        self._stop.set()
        deadline = time.monotonic() + GRACE
        self._signal(signal.SIGTERM)
        while self._pids and time.monotonic() < deadline:
            time.sleep(0.02)
        self._signal(signal.SIGKILL)
        with self._lock:
            self._connection.close()
            self._origin.kill()  # it may still be importing
            self._origin.wait()

    def run(
        self, do: str, arguments: Any, tell: Callable[[str], None], *, alone: bool = False
    ) -> None:
        """Do a stage or a piece in a process and return when it is done; its errors are raised here. ``alone``: with all GPUs and cores."""
        slot = {} if alone else self._slot()
        try:
            for pause in (*PAUSES, 0):
                state, message = self._attempt(do, arguments, slot, tell)
                if state == "done":
                    return
                if state == "stopped":
                    self._stop.wait(0.5)  # a Ctrl-C may have reached it before us
                if self._stop.is_set() or state not in AGAIN or not pause:
                    if self._stop.is_set():
                        raise Stopped(
                            message
                            if state == "stopped"
                            else "stopped on request; the same command continues"
                        )
                    raise {"usage": Misuse, "bug": RuntimeError}.get(state, Failure)(message)
                tell(f"{message}; trying again in {pause:g} s")
                self._stop.wait(pause)
        finally:
            if not alone:
                self._slots.put(slot)

    def fill_the_cpu(self, stages: int) -> bool:
        """Whether so many stages at a time use all cores of a machine without a GPU.

        Args:
            stages: how many, each of which uses as many cores as it is given.
        """
        self._count_slots()
        return self._gpus == 0 and self._jobs_at_a_time == stages

    def at_a_time(self) -> int:
        """How many stages run at a time."""
        self._count_slots()
        return self._jobs_at_a_time

    def _slot(self) -> dict[str, str]:
        self._count_slots()
        return self._slots.get()

    def _count_slots(self) -> None:
        """Ask the process that starts the stages for the GPUs, once, and divide the machine."""
        with self._lock:
            if self._counted:
                return
            hello = b""
            with suppress(OSError):  # we are stopping
                hello = self._connection.recv(1)
            self._counted, self._gpus = True, sum(hello)
            numbers = ",".join(map(str, range(self._gpus)))
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", numbers).split(",")
            # small networks use threads of one stage badly, but memory is needed for each of them
            jobs = max(self._jobs, 0) or self._gpus or min(available_cores(), MOST_JOBS)
            for number in range(jobs):
                slot = {environment.CORES: str(cores_per_process(jobs))}
                if self._gpus:
                    slot["CUDA_VISIBLE_DEVICES"] = visible[number % self._gpus]
                self._slots.put(slot)
            self._jobs_at_a_time = jobs

    def _attempt(
        self, do: str, arguments: Any, slot: dict[str, str], tell: Callable[[str], None]
    ) -> tuple[str, str]:
        ours, other = socket.socketpair()
        with ours:
            try:
                with self._lock, other:
                    if self._stop.is_set():
                        return "stopped", "stopped on request; the same command continues"
                    if self._origin.poll() is not None:
                        self._start()
                    socket.send_fds(self._connection, [b" "], [other.fileno()])
                ours.sendall(json.dumps([do, arguments, slot]).encode())
                ours.shutdown(socket.SHUT_WR)
            except OSError as error:  # it has just died
                return "died", f"the process that starts the stages died ({error})"
            return self._follow(ours, tell)

    def _follow(self, lines: socket.socket, tell: Callable[[str], None]) -> tuple[str, str]:
        pid, outcome, rest, heard, hung = 0, ("died", "its process died"), b"", time.monotonic(), 0
        while True:
            if not select.select([lines], [], [], 1)[0]:
                silent = time.monotonic() - heard
                if pid and silent > self._stall + GRACE * hung:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL if hung else signal.SIGTERM)
                    hung += 1
                continue
            data, heard = b"", time.monotonic()
            with suppress(ConnectionError):  # it died before it had read what to do
                data = lines.recv(1 << 16)
            if not data:  # it, and all that it started, are gone
                break
            *whole, rest = (rest + data).split(b"\n")
            for line in (one.decode(errors="replace") for one in whole):
                if not line.startswith(OUTCOME):
                    tell(line)
                    continue
                kind, said = json.loads(line.removeprefix(OUTCOME))
                if kind == "pid":
                    self._pids.add(pid := said)
                    if self._stop.is_set():
                        os.kill(pid, signal.SIGTERM)
                else:
                    outcome = (kind, said)
        self._pids.discard(pid)
        return (
            ("hung", f"no sign of life for {self._stall:g} s")
            if hung and outcome[0] != "done"
            else outcome
        )

    def _signal(self, number: signal.Signals) -> None:
        for pid in [*self._pids]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
