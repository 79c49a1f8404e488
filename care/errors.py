"""The errors of this package."""

from shards.errors import Failure


class CareError(Failure):
    """Something is wrong with a network, a training or an evaluation."""


class Diverged(CareError):  # noqa: N818 (what happened)
    """A loss or the gradients are not finite."""
