"""The errors of the package."""


class ShardError(Exception):
    """What was wanted, what was got, and what to do next, in one readable message."""


class StoreError(ShardError):
    """An object store still failed after three attempts: the same may succeed later."""
