"""The pieces of a stage, done by workers of a cluster: each with a core, features with a GPU.

These are tasks of Ray, and not of Prefect, whose server may be one on the loopback of this machine.
"""

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from flows import pieces
from flows.cluster.room import total_gpus
from flows.cluster.session import living_nodes, reason_of
from flows.outcomes import STOPPED_EARLY
from flows.result import Result
from shards.errors import ShardError, Stopped


def map_pieces(
    work: str, out: str, inputs: Result, missing: Sequence[Any], stopping: threading.Event
) -> None:
    """Do pieces of a stage side by side, and return when all are done.

    Args:
        work: a name in ``flows.works.WORKS``.
        out: folder of the stage, path or URL.
        inputs: of the work.
        missing: the pieces, as ``flows.pieces.missing_pieces`` gives them.
        stopping: is set when nothing is to be done any more.

    Raises:
        Stopped: ``stopping`` was set.
        ShardError: A piece failed; the stage's own process meets that, too, or mends it.
    """
    import ray

    gpus = min(total_gpus(living_nodes()), 1) if work == "features" else 0
    task = ray.remote(do_piece_below).options(num_cpus=1, num_gpus=gpus)
    folder = str(Path.cwd())
    awaited = [task.remote(folder, work, out, inputs, piece) for piece in missing]
    try:
        while awaited:
            finished, awaited = ray.wait(awaited, timeout=1)
            try:
                ray.get(finished)
            except ray.exceptions.RayError as error:
                raise ShardError(reason_of(error)) from error
            if stopping.is_set():
                raise Stopped(STOPPED_EARLY)
    finally:
        for reference in awaited:
            ray.cancel(reference, force=True)


def do_piece_below(folder: str, work: str, out: str, inputs: Result, piece: Any) -> None:
    """Do a piece in a worker of Ray.

    Args:
        folder: in which the command was given; relative paths are below it.
        work: as for ``flows.pieces.do_piece``, like what follows.
        out: folder of the stage.
        inputs: of the work.
        piece: which one.
    """
    with suppress(OSError):  # a node that has not that folder can do what is named by URLs
        os.chdir(folder)
    pieces.do_piece(work, out, inputs, piece)
