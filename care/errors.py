"""The one error class of the package."""


class CareError(Exception):
    """What was wanted, what was got, and what to do next, in one readable message."""
