"""Pieces of work, each in a process of its own: threads would wait for Python's lock.

A process is a fork: it has what this one has read, and needs no import. It does its piece and ends.
It ends by itself where this process is gone, so that no orphan holds a lock of the folder.
"""

import gc
import mmap
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import NamedTuple
from shards.errors import ShardError

# between two looks at how far the processes are
_SECONDS_BETWEEN_LOOKS = 0.1
# in the numbers that all processes share: whether to stop, and then how far each piece is
_STOP = 0
_COUNT_BYTES = 8


class DiedError(ShardError):
    """Raised when a process ended before its piece was done, and said nothing.

    Args:
        piece: the piece.
        ticks: how far it was.
        cause: by what it ended, such as SIGSEGV.
    """

    def __init__(self, piece: int, ticks: int, cause: str) -> None:
        super().__init__(f"a process ended by {cause}")
        self.piece = piece
        self.ticks = ticks
        self.cause = cause


class _Job(NamedTuple):
    """A process, its piece, the number that it counts in, and what it says if it fails."""

    process: ForkProcess
    piece: int
    slot: int
    message: Connection


def can_fork() -> bool:
    """Whether processes can be forked here.

    Other systems' libraries do not stand it. ``CARE_FORK=no`` has Linux do without, as they do.
    """
    if sys.platform != "linux" or os.environ.get("CARE_FORK") == "no":
        return False
    return not multiprocessing.current_process().daemon


def run_in_processes(
    work: Callable[[int, Callable[[], None]], None],
    pieces: Sequence[int],
    processes: int,
    advance: Callable[[int], None],
) -> None:
    """Do pieces of work, several at a time; the first failure stops all.

    Args:
        work: is called in a process with a piece and a function to call before each step, which
            raises to stop.
        pieces: in the order in which they are begun.
        processes: how many there are at a time.
        advance: is called here with the number of steps that were begun since the last call.

    Raises:
        DiedError: A process was killed.
        ShardError: What the work raised.
    """
    counts = memoryview(mmap.mmap(-1, _COUNT_BYTES * (len(pieces) + 1))).cast("q")
    waiting = [*enumerate(pieces, start=1)]
    waiting.reverse()
    running = dict[int, _Job]()
    completed = 0
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                slot, piece = waiting.pop()
                job = _start(work, piece, counts, slot)
                running[job.process.sentinel] = job
            for sentinel in wait([*running], _SECONDS_BETWEEN_LOOKS):
                assert isinstance(sentinel, int)
                _finish(running.pop(sentinel), counts)
            steps = sum(counts[1:]) - completed
            completed += steps
            advance(steps)
    finally:
        counts[_STOP] = 1
        for job in running.values():
            job.process.join()
            job.message.close()


def _start(
    work: Callable[[int, Callable[[], None]], None],
    piece: int,
    counts: memoryview,
    slot: int,
) -> _Job:
    """Fork a process for a piece."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    arguments = (work, piece, counts, slot, sender, os.getpid())
    process = context.Process(target=_do, args=arguments, daemon=True)
    with warnings.catch_warnings():
        # of threads of this process, which the piece does not need
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sender.close()
    return _Job(process, piece, slot, receiver)


def _do(
    work: Callable[[int, Callable[[], None]], None],
    piece: int,
    counts: memoryview,
    slot: int,
    sender: Connection,
    parent: int,
) -> None:
    """Do a piece, in its process."""
    gc.freeze()  # collecting what this process inherited would copy it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells when to stop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def tick() -> None:
        if counts[_STOP] or os.getppid() != parent:
            raise CancelledError
        counts[slot] += 1

    try:
        work(piece, tick)
    except CancelledError:
        sys.exit(1)
    except ShardError as error:
        sender.send_bytes(str(error).encode("utf-8", "surrogateescape"))
        sys.exit(1)


def _finish(job: _Job, counts: memoryview) -> None:
    """Look at how a process ended."""
    job.process.join()
    with job.message as message:
        code = job.process.exitcode or 0
        if code == 0:
            return
        if code < 0:
            raise DiedError(job.piece, counts[job.slot], signal.Signals(-code).name)
        try:
            text = message.recv_bytes()
        except EOFError:
            raise DiedError(job.piece, counts[job.slot], f"exit code {code}") from None
    raise ShardError(text.decode("utf-8", "surrogateescape"))
