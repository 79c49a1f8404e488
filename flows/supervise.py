"""The processes of stages, followed from here.

Each stage or piece of one has a process of its own, forked from one that has imported everything
(``flows.child``). What it prints is passed on; one that dies, hangs or loses its store is started
again; a stop lets all of them save. Nothing is computed here.
Tests: ``tests/flows/test_supervise.py`` and ``test_pipeline_kills.py``.
"""

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
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from flows import environment
from flows.attempts import Tell, try_until_done
from flows.outcomes import STOPPED_EARLY, Outcome, parse_line
from shards.cores import available_cores, cores_per_process
from shards.progress import console

GRACE_SECONDS = 60.0  # to save in, between SIGTERM and SIGKILL
# stages at a time on a machine without a GPU: small networks use the threads of one stage badly,
# but each stage needs memory
MOST_JOBS = 4


class Children:
    """The processes of one run, until ``stop``."""

    def __init__(self, jobs: int = 0, stall: float = 3600) -> None:
        """Start the process that the others are forked from.

        Args:
            jobs: stages at a time, each with its share of the CPU's cores; 0: one a GPU, or else
                one a core, at most ``MOST_JOBS``.
            stall: seconds without a line of a process after which it is taken for hung.
        """
        self._jobs = jobs
        self._stall = stall
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._pids: set[int] = set()
        # variables of the environment for each stage that may run
        self._slots: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        self._counted = False
        self._gpus = 0
        self._jobs_at_a_time = 0
        # it needs seconds, which the caller has other things to do for
        self._start_origin()

    def stop(self) -> None:
        """Have the stages that are left save themselves, and kill them after ``GRACE_SECONDS``."""
        self._stopping.set()
        deadline = time.monotonic() + GRACE_SECONDS
        self._signal_all(signal.SIGTERM)
        # not until nobody follows them: whoever did may have failed, as where a pipe is closed
        while any(map(_is_alive, list(self._pids))) and time.monotonic() < deadline:
            time.sleep(0.02)
        self._signal_all(signal.SIGKILL)
        with self._lock:
            self._connection.close()
            # it may still be importing
            self._origin.kill()
            self._origin.wait()

    def run(self, work: str, arguments: Any, tell: Tell, *, alone: bool = False) -> None:
        """Do a stage, or a piece of one, in a process of its own, and return when it is done.

        Args:
            work: "stage" or "piece".
            arguments: JSON: the fields of the stage, or the arguments of the piece.
            tell: is given each line that the process prints.
            alone: with all GPUs and cores, instead of a share of them.

        Raises:
            Stopped: ``stop`` was called.
            Misuse: Its settings are out of range, or do not go together.
            Failure: It failed, or did not end well in any attempt.
            RuntimeError: A bug ended it; the traceback is its message.
        """
        if alone:
            self._run_with(work, arguments, {}, tell)
            return
        slot = self._take_slot()
        try:
            self._run_with(work, arguments, slot, tell)
        finally:
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

    def _run_with(self, work: str, arguments: Any, slot: dict[str, str], tell: Tell) -> None:
        """Attempt it with a share of the machine, as often as that may help."""

        def attempt() -> Outcome:
            return self.attempt(work, arguments, slot, tell)

        try_until_done(attempt, self._stopping, tell)

    def _start_origin(self) -> None:
        """Start the process that forks the others; it holds the other end of a pair of sockets."""
        self._connection, other_end = socket.socketpair()
        seconds = "1" if console.is_terminal else "10"
        with other_end:
            self._origin = subprocess.Popen(
                [sys.executable, "-m", "flows.child", str(other_end.fileno())],
                pass_fds=[other_end.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {environment.PROGRESS_SECONDS: seconds},
            )

    def _take_slot(self) -> dict[str, str]:
        """Wait for a share of the machine that no stage has."""
        self._count_slots()
        return self._slots.get()

    def _count_slots(self) -> None:
        """Ask the origin for the GPUs, once, and divide the machine."""
        with self._lock:
            if self._counted:
                return
            hello = b""
            with suppress(OSError):  # we are stopping
                hello = self._connection.recv(1)
            self._counted = True
            self._gpus = sum(hello)
            self._jobs_at_a_time = (
                max(self._jobs, 0) or self._gpus or min(available_cores(), MOST_JOBS)
            )
            for slot in _divide_machine(self._jobs_at_a_time, self._gpus):
                self._slots.put(slot)

    def attempt(self, work: str, arguments: Any, slot: dict[str, str], tell: Tell) -> Outcome:
        """Have a process forked, hand it its work, and follow it to its end.

        Args:
            work: as for ``run``, or "member" for one of several processes that train together.
            arguments: JSON, of the work.
            slot: variables for its environment.
            tell: is given each line that the process prints.
        """
        connection, other_end = socket.socketpair()
        with connection:
            try:
                with self._lock, other_end:
                    if self._stopping.is_set():
                        return Outcome("stopped", STOPPED_EARLY)
                    if self._origin.poll() is not None:
                        self._start_origin()
                    socket.send_fds(self._connection, [b" "], [other_end.fileno()])
                connection.sendall(json.dumps([work, arguments, slot]).encode())
                connection.shutdown(socket.SHUT_WR)
            except OSError as error:  # it has just died
                return Outcome("died", f"the process that starts the stages died ({error})")
            return self._follow(connection, tell)

    def _follow(self, connection: socket.socket, tell: Tell) -> Outcome:
        """Pass on what a process prints until it, and all that it started, are gone.

        One that is silent for too long is asked to save itself, and killed later.
        """
        outcome = Outcome("died", "its process died")
        pid = 0
        signals_sent = 0
        last_heard = time.monotonic()
        for line in _read_lines(connection):
            if line is None:
                silent = time.monotonic() - last_heard
                if pid and silent > self._stall + GRACE_SECONDS * signals_sent:
                    _send_signal(pid, signal.SIGKILL if signals_sent else signal.SIGTERM)
                    signals_sent += 1
                continue
            last_heard = time.monotonic()
            message = parse_line(line)
            if message is None:
                tell(line)
            elif isinstance(message, Outcome):
                outcome = message
            else:
                pid = message
                self._pids.add(pid)
                if self._stopping.is_set():
                    _send_signal(pid, signal.SIGTERM)
        self._pids.discard(pid)
        if signals_sent and outcome.state != "done":
            return Outcome("hung", f"no sign of life for {self._stall:g} s")
        return outcome

    def _signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the process of each stage that runs."""
        for pid in list(self._pids):
            _send_signal(pid, number)


def _divide_machine(jobs: int, gpus: int) -> Iterator[dict[str, str]]:
    """For each of so many stages at a time its share of the machine.

    Args:
        jobs: stages at a time.
        gpus: that the machine has, or that the environment leaves us of them.

    Yields:
        Variables for the environment of a stage.
    """
    numbers = ",".join(map(str, range(gpus)))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", numbers).split(",")
    for job in range(jobs):
        slot = {environment.CORES: str(cores_per_process(jobs))}
        if gpus:
            slot["CUDA_VISIBLE_DEVICES"] = visible[job % gpus]
        yield slot


def _read_lines(connection: socket.socket) -> Iterator[str | None]:
    """The lines that come in, without their ends, until the other end is closed by all.

    Yields:
        A line, or None whenever nothing has come for a second.
    """
    unfinished = b""
    while True:
        readable, _, _ = select.select([connection], [], [], 1)
        if not readable:
            yield None
            continue
        data = b""
        with suppress(ConnectionError):  # it died before it had read what to do
            data = connection.recv(1 << 16)
        if not data:
            return
        *lines, unfinished = (unfinished + data).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")


def _is_alive(pid: int) -> bool:
    """Whether a process of the origin's is there; it has none that have ended and wait."""
    try:
        os.kill(pid, 0)
    except OSError:  # it has ended, and perhaps a process of somebody else has its number
        return False
    return True


def _send_signal(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
