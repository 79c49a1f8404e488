"""TensorBoard's event files of a run, in its directory: every number of every step as a scalar."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from care.errors import CareError
from care.train import mirror
from care.train.run_log import OnStep


def summary_writer() -> Callable[..., Any]:
    """Torch's class that writes event files.

    Raises:
        CareError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise CareError(
            "wanted to write event files, got no TensorBoard here; pip install"
            " 'care-ssl[tensorboard]', or leave --tensorboard out"
        ) from None
    return SummaryWriter


@contextmanager
def tensorboard_log(run: str | Path) -> Iterator[OnStep]:
    """Write a run's numbers for TensorBoard, too.

    The files lie beside ``losses.jsonl``, one for each call that trained, and go to the URL of a
    run as its other files do. ``tensorboard --logdir`` of the folder above shows several runs. They
    hold times and the machine's name, and are no part of the result.

    Args:
        run: run directory or its URL.

    Yields:
        What ``pretrain`` takes as ``on_step``. A process that never calls it writes nothing.

    Raises:
        CareError: TensorBoard is not installed.
    """
    make_writer = summary_writer()
    folder = mirror.local_copy(run)
    writers: list[Any] = []

    def write(step: int, numbers: Mapping[str, float]) -> None:
        """Add the numbers of a step; those of a lost call from there on are hidden."""
        if not writers:
            writers.append(make_writer(str(folder), purge_step=step))
        (writer,) = writers
        for name, number in numbers.items():
            writer.add_scalar(name, number, step)
        writer.flush()  # a checkpoint may take the file to its URL now

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()
