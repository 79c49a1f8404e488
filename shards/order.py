"""The order that samples are trained in: a pure function of the seed, the epoch and the step."""

from functools import lru_cache
from typing import NamedTuple
import numpy as np
from numpy.typing import NDArray
from shards.errors import ShardError

BLOCK = 16  # runs whose samples are shuffled among each other


class Step(NamedTuple):
    """One global batch: ``ids`` are sample numbers ``[batch_size]``, in batch order."""

    epoch: int
    ids: NDArray[np.int64]

    def of_rank(self, rank: int, world: int) -> NDArray[np.int64]:
        """The slice of process ``rank`` of ``world``: equal parts, in batch order, or a ``ShardError``."""
        if len(self.ids) % world:
            raise ShardError(
                f"cannot cut batches of {len(self.ids)} into {world} equal parts; use a multiple of {world}"
            )
        return np.split(self.ids, world)[rank]


def permutation(count: int, *, seed: int, stream: int, block: int = 0) -> NDArray[np.int64]:
    """A random order ``[count]`` of ``range(count)`` for every (seed, stream, block); stream 0 is the build's, e + 1 that of epoch e."""
    # numpy promises the bits of raw Philox words for ever, Generator.permutation's not
    return np.argsort(_words(count, seed, stream, block), kind="stable")


def step_ids(count: int, *, batch_size: int, step: int, seed: int, run: int = 1000) -> Step:
    """The epoch and the samples of global batch ``step`` (from 0): pure, so the same on every rank and after every restart.

    Every epoch is a permutation of the ``count`` samples cut into ``count // batch_size`` batches for all ranks together; it leaves out
    up to ``batch_size - 1`` samples, others each epoch. It shuffles runs of ``run`` neighbours, such as shards, then the samples in blocks
    of ``BLOCK`` runs: remote sets are read shard by shard, in constant memory. Too few samples: ``ShardError``.
    """
    if not 0 < batch_size <= count or step < 0 or run < 1:
        raise ShardError(
            f"wanted batch {step} of {batch_size} samples, got a set of {count}; use a batch size from 1 to {count}"
        )
    epoch, at = divmod(step, count // batch_size)
    first, last, size = at * batch_size, (at + 1) * batch_size, BLOCK * run
    final = max(-(-(count // run) // BLOCK) - 1, 0)
    blocks = range(min(first // size, final), min((last - 1) // size, final) + 1)
    parts = [
        _block(count, seed, epoch, run, block)[max(first - block * size, 0) : last - block * size]
        for block in blocks
    ]
    return Step(epoch, np.concatenate(parts))


@lru_cache(maxsize=4)
def _block(count: int, seed: int, epoch: int, run: int, block: int) -> NDArray[np.int64]:
    if (runs := count // run) <= BLOCK:
        return permutation(count, seed=seed, stream=epoch + 1)
    places = range(block * BLOCK, min((block + 1) * BLOCK, runs))
    *keys, turn = _words(7, seed, epoch + 1, 1 << 63).tolist()
    chosen = sorted(_shuffled(place, runs, keys) for place in places)
    chosen += [runs] if places.stop == runs else []  # what is left over joins the last block
    ids: NDArray[np.int64] = (np.array(chosen)[:, None] * run + np.arange(run)).ravel()
    ids = (ids[ids < count] + turn % runs * run) % count  # others are left over in each epoch
    return ids[permutation(len(ids), seed=seed, stream=epoch + 1, block=block)]


def _words(count: int, seed: int, stream: int, block: int) -> NDArray[np.uint64]:
    return np.random.Philox(key=seed % 2**64 | int(stream) << 64, counter=block << 192).random_raw(
        count
    )


def _shuffled(place: int, count: int, keys: list[int]) -> int:
    # What a random order of range(count) has at ``place``: a Feistel network, walked until it is inside the range.
    half = ((count - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for key in keys:
            mixed = (right ^ key) * 0x9E3779B97F4A7C15 % 2**64
            left, right = (
                right,
                left ^ ((mixed ^ mixed >> 32) * 0xD6E8FEB86659FD93 % 2**64 >> 40) & mask,
            )
        place = left << half | right
        if place < count:
            return place
