"""Errors that are shown to a user as one readable message, without a traceback.

A command that ends by such an error exits with the code of its class.
"""


class Failure(Exception):  # noqa: N818 (a stop is none)
    """What was wanted, what was got, and what to do next, in one readable message."""

    code = 1


class ShardError(Failure):
    """A failure of images, shard sets or storage."""


class StoreError(ShardError):
    """An object store still failed after three attempts.

    The same may succeed later.
    """


class Misuse(Failure):
    """Arguments are out of range, or do not go together."""

    code = 2


class Stopped(Failure):
    """The run was asked to stop and has saved itself.

    What asks is a SIGINT or a SIGTERM. The same call continues the run.
    """

    code = 3
