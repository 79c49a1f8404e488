"""Old names of ``bounds`` and ``progress``, until nobody imports them."""

from shards.bounds import BatchSize as Batch
from shards.bounds import Fraction as Share
from shards.bounds import NonNegativeFloat as Amount
from shards.bounds import NonNegativeInt as Natural
from shards.bounds import PixelSide as Side
from shards.bounds import PositiveFloat as Positive
from shards.bounds import PositiveInt as Count
from shards.bounds import Range
from shards.progress import console, progress

__all__ = [
    "Amount",
    "Batch",
    "Count",
    "Natural",
    "Positive",
    "Range",
    "Share",
    "Side",
    "console",
    "progress",
]
