"""How many processes decode images beside one that computes: speed, never the result."""

import shutil
import torch
from care.train import ranks
from shards.cores import cores_per_process
from shards.processes import can_fork
from shards.progress import warn

# batches below which starting workers costs more than it saves
SHORT_STREAM = 20
MOST_FOR_CUDA = 8
# where the network computes on the CPU, decoding needs about a tenth of the time
MOST_FOR_CPU = 2
# batches of each worker that wait in shared memory, torch's default
PREFETCHED = 2
SHARED_MEMORY = "/dev/shm"
# batches of floats, or of longer images than square ones, are larger than said
MARGIN = 4


def worker_count(
    workers: int | None,
    device: torch.device,
    *,
    batches: int,
    batch_bytes: int = 0,
    threads: int | None = None,
) -> int:
    """Processes that decode a stream of batches.

    Args:
        workers: as many as are asked for, or None for what is best here.
        device: where the network computes.
        batches: length of the stream.
        batch_bytes: size of a decoded batch in this process, about.
        threads: that compute in this process; by default torch's number.

    Returns:
        The number of workers, never more than batches; 0 means that this process decodes.
    """
    if workers is None:
        workers = automatic_workers(device, threads) if batches >= SHORT_STREAM else 0
        if workers and batch_bytes:
            workers = _fitting_shared_memory(workers, batch_bytes)
    return min(workers, max(batches, 0))  # a run of fewer steps than it has taken has none left


def automatic_workers(device: torch.device, threads: int | None = None) -> int:
    """Workers that are best on this machine for a long stream of batches.

    Args:
        device: where the network computes.
        threads: that compute in this process; by default torch's number.

    Returns:
        On CUDA the cores of this process but one, at most 8 and, of several cores, at least 1.
        On a CPU the cores that the threads leave, at most 2. None where processes cannot be
        forked: in a daemon, such as a process of Dask, which may have no children, and on systems
        other than Linux, where each would run the user's script again.
    """
    if not can_fork():
        return 0
    # OMP_NUM_THREADS limits threads that compute, and torchrun sets it to 1: here cores count
    cores = cores_per_process(ranks.local_world())
    if device.type == "cuda":
        return min(MOST_FOR_CUDA, cores - 1)
    computing = torch.get_num_threads() if threads is None else threads
    return min(MOST_FOR_CPU, max(cores - computing, 0))


def _fitting_shared_memory(workers: int, batch_bytes: int) -> int:
    """As many of the workers as have room for their batches.

    Containers often have 64 MB. A worker without room dies by a bus error, and the training with
    it.
    """
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free // ranks.local_world()
    except OSError:  # other systems share otherwise
        return workers
    fitting = min(workers, free // (PREFETCHED * MARGIN * batch_bytes))
    if fitting < workers and ranks.rank() == 0:
        warn(
            f"{SHARED_MEMORY} has room for the batches of {fitting} of {workers} workers; "
            "give the container more (docker run --shm-size), or --workers to insist",
        )
    return fitting
