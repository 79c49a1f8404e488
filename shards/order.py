"""Pure: which samples step k reads, from (count, batch size, seed) alone; no sampler state exists that could be lost."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shards.errors import ShardError


class Step(NamedTuple):
    """One global batch."""

    epoch: int
    ids: NDArray[np.int64]
    """Sample numbers ``[batch_size]``, in batch order."""


def permutation(count: int, *, seed: int, stream: int) -> NDArray[np.int64]:
    """A random order ``[count]`` of ``range(count)``, another one for every (seed, stream).

    Stream 0 is the build's, stream e + 1 that of epoch e.
    """
    # Sorting raw Philox words, not Generator.permutation: numpy promises the former's bits for ever, the latter's not.
    words = np.random.Philox(key=np.array([seed % 2**64, stream], np.uint64)).random_raw(count)
    return np.argsort(words, kind="stable")


def step_ids(count: int, *, batch_size: int, step: int, seed: int) -> Step:
    """The epoch and the samples of global batch ``step`` (from 0), the same on every rank and after every restart.

    Every epoch is a permutation of the ``count`` samples cut into whole batches; the incomplete last batch is dropped, so
    an epoch has ``count // batch_size`` steps and leaves out up to ``batch_size - 1`` samples, others each epoch.

    Raises:
        ShardError: fewer samples than one batch.
    """
    steps = count // batch_size if batch_size > 0 else 0
    if steps == 0 or step < 0:
        raise ShardError(f"wanted batch {step} of {batch_size} samples, got a set of {count}; use a batch size from 1 to {count}")
    epoch, at = divmod(step, steps)
    return Step(epoch, _epoch(count, seed, epoch)[at * batch_size : (at + 1) * batch_size])


@lru_cache(maxsize=2)
def _epoch(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    order = permutation(count, seed=seed, stream=epoch + 1)
    order.flags.writeable = False  # the cache hands out views
    return order
