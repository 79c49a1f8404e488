"""The errors of the package."""

from shards.errors import Failure


class CareError(Failure):
    """Of networks, trainings, evaluations."""


class Diverged(CareError):  # noqa: N818 (what happened)
    """A loss or the gradients are not finite."""
