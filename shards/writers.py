"""The missing shards of a plan, several at a time: a process each where that helps, or a thread."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from shards import storage
from shards.errors import ShardError
from shards.plan import Plan, tar_name
from shards.processes import DiedError, can_fork, run_in_processes
from shards.progress import progress
from shards.sources.candidates import is_elsewhere
from shards.write import write_shard

# fewer are written by threads: a process takes as long to begin as some tens of images
_FEW_IMAGES = 1000


def write_shards(plan: Plan, root: Path, numbers: Sequence[int], workers: int) -> None:
    """Write some shards of a plan; the first failure stops all.

    Args:
        plan: what the set is built from.
        root: the set's folder.
        numbers: which of its shards.
        workers: how many are written at a time.

    Raises:
        ShardError: As of ``write_shard``; or a process was killed, and at which image.
    """
    count = len(plan.source.samples)
    todo = sum(len(plan.shards[number]) for number in numbers)
    is_long = min(workers, len(numbers)) > 1 and todo >= _FEW_IMAGES
    by_processes = is_long and can_fork() and _is_local(plan, root)
    write = _write_by_processes if by_processes else _write_by_threads
    with progress("building", count, start=count - todo) as advance:
        write(plan, root, numbers, workers, advance)


def _is_local(plan: Plan, root: Path) -> bool:
    """Whether neither the set nor an image of it is in a store, whose clients cannot be forked."""
    has_remote = any(is_elsewhere(image.path) for image in plan.source.samples)
    return not has_remote and not storage.is_remote(root)


def _write_by_processes(
    plan: Plan,
    root: Path,
    numbers: Sequence[int],
    workers: int,
    advance: Callable[[int, str], None],
) -> None:
    """Write shards, each in a process: in Python, a small image takes longer than in libraries."""

    def write(number: int, tick: Callable[[], None]) -> None:
        write_shard(plan, root, number, tick)

    def count(images: int) -> None:
        advance(images, "")

    try:
        run_in_processes(write, numbers, workers, count)
    except DiedError as error:
        name = plan.shards[error.piece][max(error.ticks - 1, 0)].name
        raise ShardError(
            f"the process that wrote {tar_name(error.piece)} ended by {error.cause} at {name}; "
            "repeat the command, which goes on where it stopped. If it ends there again, move that "
            "file away; SIGKILL mostly means that memory ran out: try fewer --workers"
        ) from None


def _write_by_threads(
    plan: Plan,
    root: Path,
    numbers: Sequence[int],
    workers: int,
    advance: Callable[[int, str], None],
) -> None:
    """Write shards, each in a thread."""
    stopped = threading.Event()
    lock = threading.Lock()

    def tick() -> None:
        if stopped.is_set():
            raise CancelledError
        with lock:
            advance(1, "")

    def write(number: int) -> None:
        write_shard(plan, root, number, tick)

    with ThreadPoolExecutor(workers) as pool:
        try:
            # taking the results raises the first failure, which cancels what has not begun
            list(pool.map(write, numbers))
        finally:
            stopped.set()
