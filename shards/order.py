"""The order of training: a pure function of the number of samples, the seed and the step.

No sampler has a state that could be lost. An epoch shuffles runs of neighbouring samples, such as
shards, and then the samples in blocks of ``RUNS_PER_BLOCK`` runs, so that a remote set is read
shard after shard. No table of all samples is needed: time and memory of a step do not grow with
the set.
"""

from functools import lru_cache
from typing import NamedTuple
import numpy as np
from numpy.typing import NDArray
from shards.errors import ShardError

RUNS_PER_BLOCK = 16
# of the random words that deal the runs; the blocks of samples count up from 0
_DEALING_BLOCK = 1 << 63
_FEISTEL_ROUNDS = 6
# odd numbers whose bits are well mixed: 2⁶⁴ over the golden ratio, and one of 64-bit hashes
_MULTIPLIERS = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93


class Step(NamedTuple):
    """One global batch.

    Attributes:
        epoch: which pass over the samples it belongs to, from 0.
        ids: sample numbers [batch_size], in batch order.
    """

    epoch: int
    ids: NDArray[np.int64]

    def of_rank(self, rank: int, world: int, *, parts: int = 1) -> NDArray[np.int64]:
        """The share of the batch that one process takes.

        Args:
            rank: the number of the process, from 0.
            world: how many processes there are.
            parts: into which the batch is cut, of each of which every process takes its share. So
                a part has the same images however many processes there are.

        Returns:
            Sample numbers [batch_size / world]: equal shares, one part after the other, each in
            batch order.

        Raises:
            ShardError: The batch cannot be cut into ``parts`` times ``world`` equal shares.
        """
        count = parts * world
        if len(self.ids) % count:
            raise ShardError(
                f"cannot cut batches of {len(self.ids)} into {count} equal parts; "
                f"use a multiple of {count}"
            )
        return self.ids.reshape(parts, world, -1)[:, rank].reshape(-1)


def permutation(count: int, *, seed: int, stream: int, block: int = 0) -> NDArray[np.int64]:
    """A random order of ``range(count)``, another one for every seed, stream and block.

    Args:
        count: how many numbers there are.
        seed: any integer.
        stream: what the order is for: 0 is the build's, e + 1 that of epoch e.
        block: the part of the stream.

    Returns:
        The numbers [count].
    """
    # numpy promises the bits of raw Philox words for ever, Generator.permutation's not
    return np.argsort(_random_words(count, seed, stream, block), kind="stable")


def step_ids(count: int, *, batch_size: int, step: int, seed: int, run_length: int = 1000) -> Step:
    """The epoch and the samples of a global batch.

    They are the same on every rank and after every restart. Every epoch is a permutation of the
    samples cut into ``count // batch_size`` batches for all ranks together; it leaves out up to
    ``batch_size - 1`` samples, others each epoch.

    Args:
        count: number of samples of the set.
        batch_size: number of samples of a step, on all ranks together.
        step: number of the batch, counted from 0.
        seed: seed of the order.
        run_length: how many neighbouring samples stay together in a block; best, those of a shard.

    Returns:
        The step.

    Raises:
        ShardError: There are fewer samples than one batch, or a number is out of range.
    """
    if not 0 < batch_size <= count or step < 0 or run_length < 1:
        raise ShardError(
            f"wanted batch {step} of {batch_size} samples, got a set of {count}; "
            f"use a batch size from 1 to {count}"
        )
    epoch, batch = divmod(step, count // batch_size)
    start = batch * batch_size
    stop = start + batch_size
    block_size = RUNS_PER_BLOCK * run_length
    last_block = max((count // run_length - 1) // RUNS_PER_BLOCK, 0)
    first_block = min(start // block_size, last_block)
    parts = list[NDArray[np.int64]]()
    # the last block has the samples that do not fill a run, too
    for block in range(first_block, min((stop - 1) // block_size, last_block) + 1):
        ids = _ids_of_block(count, seed, epoch, run_length, block)
        block_start = block * block_size
        first = max(start - block_start, 0)
        parts.append(ids[first : stop - block_start])
    return Step(epoch, np.concatenate(parts))


@lru_cache(maxsize=4)
def _ids_of_block(
    count: int, seed: int, epoch: int, run_length: int, block: int
) -> NDArray[np.int64]:
    """The samples of one block of an epoch, in order.

    A set of few runs is one block and shuffled at once. Else the runs are dealt to the blocks at
    random, and what does not fill a run joins the last block.
    """
    stream = epoch + 1
    runs = count // run_length
    if runs <= RUNS_PER_BLOCK:
        return permutation(count, seed=seed, stream=stream)
    *keys, rotation = _random_words(_FEISTEL_ROUNDS + 1, seed, stream, _DEALING_BLOCK).tolist()
    start = block * RUNS_PER_BLOCK
    stop = min(start + RUNS_PER_BLOCK, runs)
    dealt_runs = sorted(_permuted(position, runs, keys) for position in range(start, stop))
    if stop == runs:
        dealt_runs.append(runs)
    ids: NDArray[np.int64] = np.add.outer(
        np.array(dealt_runs) * run_length, np.arange(run_length)
    ).ravel()
    ids = ids[ids < count]
    # turned by whole runs, so that the samples that do not fill a run are others in each epoch
    ids = (ids + rotation % runs * run_length) % count
    return ids[permutation(len(ids), seed=seed, stream=stream, block=block)]


def _random_words(count: int, seed: int, stream: int, block: int) -> NDArray[np.uint64]:
    """Random 64-bit words [count] of a counter-based generator: any part of it costs the same."""
    key = seed % 2**64 | int(stream) << 64
    return np.random.Philox(key=key, counter=block << 192).random_raw(count)


def _permuted(position: int, count: int, keys: list[int]) -> int:
    """What a random order of ``range(count)`` has at a position, without the rest of it.

    A Feistel network permutes the numbers of an even number of bits. It is walked from the position
    until it is inside the range again, which permutes the range.

    Args:
        position: a number from 0 to ``count - 1``.
        count: the length of the range.
        keys: random words, one for each round.
    """
    half_bits = ((count - 1).bit_length() + 1) // 2
    mask = (1 << half_bits) - 1
    while True:
        high = position >> half_bits
        low = position & mask
        for key in keys:
            high, low = low, high ^ _mix(low ^ key) & mask
        position = high << half_bits | low
        if position < count:
            return position


def _mix(word: int) -> int:
    """The upper 24 bits of a hash of a 64-bit word."""
    first, second = _MULTIPLIERS
    word = word * first % 2**64
    word = (word ^ word >> 32) * second % 2**64
    return word >> 40
