"""The error class of the package, and the stop that is none."""


class CareError(Exception):
    """What was wanted, what was got, and what to do next, in one readable message."""


class Misuse(CareError):  # noqa: N818 (whose, is told by the message)
    """Arguments out of range, or that do not go together."""


class Diverged(CareError):  # noqa: N818 (what happened, as the next one)
    """A loss or the gradients are not finite."""


class Stopped(Exception):  # noqa: N818 (no error: it was asked for)
    """The run was asked to stop (SIGINT or SIGTERM) and has saved itself; the same call continues it."""
