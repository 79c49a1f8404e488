"""Position encodings of the attention over a map: the term q·pᵀ of Eq. 2 (Table 8).

An encoding is folded into queries and keys, so that one plain attention call, of any kernel,
computes Eq. 2 without a matrix of biases. ``tests/care/test_attention.py`` compares every one with
Eq. 2 computed one logit at a time.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.errors import CareError
from care.sines import over_the_map, sin_cos_table

Heads = Float[Tensor, "b heads tokens _"]


class Position(nn.Module):
    """A position encoding, to be subclassed.

    Args:
        dim: channels of an attention head.
        map_size: height and width of the maps that learned tables are made for. On maps of another
            size they are stretched, see ``resized``.
    """

    def __init__(self, dim: int, map_size: tuple[int, int]) -> None:
        super().__init__()

    def fold(self, q: Heads, k: Heads, map_size: tuple[int, int]) -> tuple[Heads, Heads]:
        """Make queries and keys whose products are the logits of Eq. 2.

        Args:
            q: queries, not scaled; tokens are the pixels, row by row.
            k: keys.
            map_size: height and width of the map.

        Returns:
            Queries and keys of equal width, which may be greater than that of ``q`` and ``k``.
        """
        raise NotImplementedError


class NoPosition(Position):
    """Content-only attention: Eq. 2 without its position term (Table 8)."""

    def fold(self, q: Heads, k: Heads, map_size: tuple[int, int]) -> tuple[Heads, Heads]:
        """Leave both as they are."""
        return q, k


class AbsolutePosition(Position):
    """Learnable absolute positions, an embedding of the row plus one of the column.

    The keys gain them, since q·kᵀ + q·pᵀ = q·(k + p)ᵀ.

    Source: Table 8; the released code's encoding.
    """

    def __init__(self, dim: int, map_size: tuple[int, int]) -> None:
        super().__init__(dim, map_size)
        height, width = map_size
        self.height = _table(height, dim)
        self.width = _table(width, dim)

    def fold(self, q: Heads, k: Heads, map_size: tuple[int, int]) -> tuple[Heads, Heads]:
        """Add the positions to the keys."""
        height, width = map_size
        rows = resized(self.height, height)
        columns = resized(self.width, width)
        return q, k + (rows[:, None] + columns).flatten(0, 1)


class SinCosPosition(Position):
    """Fixed absolute positions: sines and cosines of the row, and of the column.

    Half of the channels are the row's, half the column's.

    Args:
        dim: channels of a head, a multiple of 4.
        map_size: height and width of the map; any other works, too.

    Raises:
        CareError: The channels are no multiple of 4.

    Source: Table 8.
    """

    def __init__(self, dim: int, map_size: tuple[int, int]) -> None:
        super().__init__(dim, map_size)
        if dim % 4:
            raise CareError(
                f"wanted a multiple of 4 channels a head for sin-cos positions, got {dim}"
            )

    def fold(self, q: Heads, k: Heads, map_size: tuple[int, int]) -> tuple[Heads, Heads]:
        """Add the positions to the keys."""
        # in float32 at least: bfloat16 cannot tell neighbouring angles apart
        dtype = torch.promote_types(k.dtype, torch.float32)
        rows, columns = (torch.arange(side, device=k.device, dtype=dtype) for side in map_size)
        return q, k + sin_cos_table(rows, columns, k.shape[3]).to(k.dtype)


class RelativePosition(Position):
    """Learnable relative positions, an embedding for each offset of rows and of columns.

    The logit of query (i, j) and key (a, b) gains q·(rows[a − i] + columns[b − j]). The product
    with the row's embedding depends on the key by its row alone: for each query there are as many
    as the map has rows, and as many for the columns as it has columns. Queries are widened by
    these products, and keys by a one-hot row and a one-hot column, which choose among them.

    Source: the paper's default (Table 8); BoTNet's relative logits.
    """

    def __init__(self, dim: int, map_size: tuple[int, int]) -> None:
        super().__init__(dim, map_size)
        height, width = map_size
        self.rows = _table(2 * height - 1, dim)
        self.columns = _table(2 * width - 1, dim)

    def fold(self, q: Heads, k: Heads, map_size: tuple[int, int]) -> tuple[Heads, Heads]:
        """Widen both by height + width channels."""
        height, width = map_size
        b, heads, _, _ = q.shape
        queries = q.reshape(b, heads, height, width, -1)
        rows = _offsets(self.rows, height).to(q.dtype)
        columns = _offsets(self.columns, width).to(q.dtype)
        row_products = torch.einsum("bnijd,iad->bnija", queries, rows).flatten(2, 3)
        column_products = torch.einsum("bnijd,jad->bnija", queries, columns).flatten(2, 3)
        one_hot = over_the_map(
            torch.eye(height, device=k.device, dtype=k.dtype),
            torch.eye(width, device=k.device, dtype=k.dtype),
        )
        widened_q = torch.cat((q, row_products, column_products), 3)
        widened_k = torch.cat((k, one_hot.expand(b, heads, -1, -1)), 3)
        return widened_q, widened_k


def resized(table: Float[Tensor, "n d"], count: int) -> Float[Tensor, "m d"]:
    """Stretch a learned table to ``count`` positions or offsets.

    The values are linear between its entries; the first stays the first, the last the last.
    """
    if len(table) == count:
        return table
    channels_first = table.T[None]
    stretched = nn.functional.interpolate(channels_first, count, mode="linear", align_corners=True)
    return stretched[0].T


def _table(count: int, dim: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(count, dim) * dim**-0.5)


def _offsets(table: Float[Tensor, "n d"], count: int) -> Float[Tensor, "m m d"]:
    """Embeddings by position of the query and of the key along an axis of ``count`` pixels.

    Entry [i, a] is that of the offset a − i, which is ``table[a − i + count − 1]``.
    """
    table = resized(table, 2 * count - 1)
    return table.unfold(0, count, 1).flip(0).transpose(1, 2)
