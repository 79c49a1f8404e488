"""What is told, not traced: errors of one readable message, and the exit code of a command that ends by one."""


class Failure(Exception):  # noqa: N818 (a stop is none)
    """What was wanted, what was got, and what to do next, in one readable message."""

    code = 1


class ShardError(Failure):
    """Of images, sets, storage."""


class StoreError(ShardError):
    """An object store still failed after three attempts: the same may succeed later."""


class Misuse(Failure):
    """Arguments out of range, or that do not go together."""

    code = 2


class Stopped(Failure):
    """The run was asked to stop (SIGINT or SIGTERM) and has saved itself; the same call continues it."""

    code = 3
