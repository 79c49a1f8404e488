"""The one error class of the package."""


class ShardError(Exception):
    """What was wanted, what was got, and what to do next, in one readable message."""
