"""Environment variables of our own by which one process tells another what it may not ask.

Users set none of these; what they may set is in ``docs/deployment.md``. Beside those below there is
``CARE_LAUNCHED``, by which ``care.train.launch`` tells the statuses of this start from older ones,
and ``CARE_FORK``, by which tests of ``shards.processes`` have Linux do without forks.
"""

import os
from collections.abc import Iterable

# Seconds between two lines of progress of a process whose output is followed: shards.progress.
PROGRESS_SECONDS = "CARE_PROGRESS_SECONDS"
# The share of the machine's cores that a stage has, beside others that run: shards.cores.
CORES = "CARE_CORES"
# Set, a flow runs without Prefect, since its server has gone. It holds, a line each, the URLs of
# stages that were done again at the user's wish before that; they are not to be done once more.
PLAIN = "CARE_PLAIN"


def is_plain() -> bool:
    """Whether flows run without Prefect in this process."""
    return PLAIN in os.environ


def was_redone(url: str) -> bool:
    """Whether a stage was done again before this process went on without Prefect."""
    return url in os.environ.get(PLAIN, "").splitlines()


def go_plain(redone: Iterable[str]) -> None:
    """Have the process that takes over from this one run without Prefect.

    Args:
        redone: URLs of stages that were done again.
    """
    os.environ[PLAIN] = "\n".join(("1", *redone))
