"""The word that a run leaves for whoever started it: running, done, stopped or failed, and why."""

import os
from contextlib import suppress
from pathlib import Path
from care.train import ranks
from shards import ShardError, storage
from shards.errors import Failure, Stopped

STATUS = "status"
# the file in which a process that is not admitted says why, beside ``status.json``
REFUSAL = "status-refused"


def write_status(
    run: Path, state: str, message: str = "", *, name: str = STATUS, **numbers: int
) -> None:
    """Write how this process of a run is.

    Args:
        run: local run directory.
        state: ``running``, ``done``, ``stopped`` or ``failed``.
        message: why.
        name: of the file; processes but the first add their number.
        **numbers: of the run, such as its ``steps``, for who watches it.
    """
    number = ranks.rank()
    process = "" if number == 0 else f"-{number}"
    status = {"state": state, "message": message, **numbers}
    storage.write_json(run / f"{name}{process}.json", status)


def clear_statuses(run: Path) -> None:
    """Remove what earlier calls, and all their processes, have left."""
    for old in run.glob(f"{STATUS}*.json"):
        old.unlink()


def leave_word(run: Path, error: BaseException | None, *, is_admitted: bool) -> None:
    """Write how a process of a run ended.

    What is no error of ours counts as a crash: the state stays ``running``. A call that was refused
    is no part of the run: it leaves a word to who started it, and the status as it was.

    Args:
        run: local run directory.
        error: what it ended with, or None.
        is_admitted: whether the process came to train.
    """
    if not is_admitted:
        if isinstance(error, Failure) and "TORCHELASTIC_RUN_ID" in os.environ:
            with suppress(ShardError):
                write_status(run, "failed", str(error), name=REFUSAL)
    elif isinstance(error, Failure):
        state = "stopped" if isinstance(error, Stopped) else "failed"
        with suppress(ShardError):  # a full disk, which is what the error says already
            write_status(run, state, str(error))
    elif error is None and ranks.rank() == 0:
        write_status(run, "done")
