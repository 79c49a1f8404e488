"""Nearest neighbours by cosine in bounded memory: blocks of keys pass by resident queries."""

from typing import NamedTuple
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

MEMORY = 2 * 2**30  # bytes on the device
LAST = 2**32 - 1  # the largest row number that fits into the lower half of a word


class Blocks(NamedTuple):
    """How many rows are on the device at a time.

    Attributes:
        resident: queries that stay while all keys pass by once.
        queries: of these, the ones whose cosines with a block of keys are computed at once.
        keys: in a block, which is transferred once for all resident queries.
    """

    resident: int
    queries: int
    keys: int


class Neighbours(NamedTuple):
    """The nearest keys of every query, the nearest first, on the CPU."""

    cosines: Float[Tensor, "q k"]
    rows: Int[Tensor, "q k"]


def knn_memory(blocks: Blocks, features: int, k: int) -> int:
    """Bytes on the device at most.

    They are 4 d (r + q + 2 b) + 4 (q + b) + 12 q b + 8 b + 16 r k + 40 q k: of float32 rows, of
    which a block is there as it came and normalised; of the block's norms; of its cosines of 4
    bytes, which become words of 8; and of the best words so far.

    Args:
        blocks: r, q and b: resident queries, queries at once, keys in a block.
        features: d, in each row.
        k: neighbours.
    """
    resident, queries, keys = blocks
    rows = 4 * features * (resident + queries + 2 * keys) + 4 * (queries + keys)
    words = 12 * queries * keys + 8 * keys
    best = 16 * resident * k + 40 * queries * k
    return rows + words + best


def choose_blocks(
    queries: int,
    keys: int,
    features: int,
    k: int,
    *,
    memory: int = MEMORY,
) -> Blocks:
    """Blocks whose ``knn_memory`` is at most ``memory``, with as many resident queries as fit.

    Args:
        queries: in the set.
        keys: in the set.
        features: in each row.
        k: neighbours.
        memory: bytes on the device; blocks of one row are used where they do not suffice.
    """
    at_once = max(min(queries, 4096), 1)
    block = max(min(keys, 16_384), 1)
    while at_once * block > 1 and knn_memory(Blocks(at_once, at_once, block), features, k) > memory:
        if block > at_once:
            block //= 2
        else:
            at_once //= 2
    rest = memory - knn_memory(Blocks(0, at_once, block), features, k)
    resident = min(queries, rest // (4 * features + 16 * k))
    return Blocks(max(resident, at_once), at_once, block)


@torch.no_grad()
def nearest(
    queries: Float[Tensor, "q d"],
    keys: Float[Tensor, "n d"],
    k: int,
    *,
    device: torch.device | str = "cpu",
    blocks: Blocks | None = None,
) -> Neighbours:
    """The ``k`` keys (or all) of highest cosine with every query.

    Of equal cosines that of the key with the smaller row number counts as the higher one.

    Args:
        queries: float32 rows of any length, on the CPU.
        keys: likewise; neither set is copied or normalised as a whole.
        k: neighbours.
        device: where the cosines are computed.
        blocks: by default those of ``choose_blocks``, whose memory grows with neither set.

    Returns:
        Cosines and row numbers [q, min(k, n)].
    """
    blocks = blocks or choose_blocks(len(queries), len(keys), keys.shape[1], k)
    where = torch.device(device)
    passes = torch.split(queries, blocks.resident)
    words = torch.cat([_best_words(resident, keys, k, where, blocks) for resident in passes])
    return Neighbours(_cosines(words), LAST - (words & LAST))


def _best_words(
    queries: Float[Tensor, "r d"],
    keys: Float[Tensor, "n d"],
    k: int,
    device: torch.device,
    blocks: Blocks,
) -> Int[Tensor, "r k"]:
    """The ``k`` highest words of every query, falling, on the CPU, in one pass of the keys."""
    resident = torch.empty(queries.shape, device=device)
    for rows in _slices(len(queries), blocks.queries):
        resident[rows] = _unit(queries[rows].to(device))
    best = torch.empty(len(queries), 0, dtype=torch.int64, device=device)
    for rows in _slices(len(keys), blocks.keys):
        best = _merged(best, resident, _unit(keys[rows].to(device)), rows.start, k, blocks.queries)
    return best.cpu()


def _merged(
    best: Int[Tensor, "r before"],
    resident: Float[Tensor, "r d"],
    unit_keys: Float[Tensor, "b d"],
    first_row: int,
    k: int,
    at_once: int,
) -> Int[Tensor, "r after"]:
    """The highest words of those before and those of a block of keys, whose numbers begin so."""
    after = min(k, best.shape[1] + len(unit_keys))
    merged = best.new_empty(len(best), after)
    for rows in _slices(len(best), at_once):
        words = _words(resident[rows] @ unit_keys.T, first_row)
        words = words.topk(min(k, len(unit_keys)), dim=1).values
        merged[rows] = torch.cat((best[rows], words), 1).topk(after, dim=1).values
    return merged


def _words(cosines: Float[Tensor, "q b"], first_row: int) -> Int[Tensor, "q b"]:
    """Integers ordered as the cosines are, and among equal ones as falling row numbers.

    ``topk`` promises no order among equal values, and where the blocks end must decide nothing.
    The upper half of a word has the cosine's bits, in two's complement, the lower one the row.
    """
    bits = cosines.add_(0.0).view(torch.int32)  # 0 and -0 are equal, but their bits are not
    bits ^= (bits >> 31).bitwise_and_(2**31 - 1)
    words = bits.long().bitwise_left_shift_(32)
    last_row = first_row + cosines.shape[1]
    words |= LAST - torch.arange(first_row, last_row, device=cosines.device)
    return words


def _cosines(words: Int[Tensor, "q k"]) -> Float[Tensor, "q k"]:
    """The cosines that ``_words`` has put into the upper halves."""
    bits = (words >> 32).int()
    bits ^= (bits >> 31) & (2**31 - 1)
    return bits.view(torch.float32)


def _unit(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return nn.functional.normalize(rows, dim=1)


def _slices(count: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]
