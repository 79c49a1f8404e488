"""The one error class of the package, and the stop that is none."""


class CareError(Exception):
    """What was wanted, what was got, and what to do next, in one readable message."""


class Stopped(Exception):  # noqa: N818 (no error: it was asked for)
    """The run was asked to stop (SIGINT or SIGTERM) and has saved itself; the same call continues it."""
