"""Position encodings of the attention over a feature map (Sec. 3.2, Eq. 2, Table 8)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

Heads = Float[Tensor, "b heads tokens _"]


class NoPosition(nn.Module):
    """Eq. 2 without its position term (Table 8), and the encodings' base: for heads of ``dim`` channels on maps of ``map_size`` (h, w)."""

    def __init__(self, dim: int, map_size: tuple[int, int]) -> None:
        super().__init__()

    def fold(self, q: Heads, k: Heads, map_size: tuple[int, int]) -> tuple[Heads, Heads]:
        """Queries and keys whose products are the logits of Eq. 2 on a map of ``map_size``: one plain attention call computes it."""
        return q, k


class AbsolutePosition(NoPosition):
    """Learnable absolute positions, a row plus a column embedding: q·kᵀ + q·pᵀ = q·(k + p)ᵀ (Table 8; the released code)."""

    def __init__(self, dim: int, map_size: tuple[int, int]) -> None:
        super().__init__(dim, map_size)
        self.height, self.width = (nn.Parameter(torch.randn(n, dim) * dim**-0.5) for n in map_size)

    def fold(self, q: Heads, k: Heads, map_size: tuple[int, int]) -> tuple[Heads, Heads]:
        """The keys gain their positions."""
        height, width = (
            resized(table, n) for table, n in zip((self.height, self.width), map_size, strict=True)
        )
        return q, k + (height[:, None] + width).flatten(0, 1)


class SinCosPosition(NoPosition):
    """Fixed absolute positions: half of the channels (a multiple of 4) sine and cosine of the row, half of the column (Table 8)."""

    def fold(self, q: Heads, k: Heads, map_size: tuple[int, int]) -> tuple[Heads, Heads]:
        """The keys gain their positions."""
        (h, w), count = map_size, k.shape[3] // 4
        index = torch.arange(
            max(h, w, count), device=k.device, dtype=torch.promote_types(k.dtype, torch.float32)
        )
        angles = (index[:n, None] * 1e4 ** (-index[:count] / count) for n in map_size)
        rows, columns = (torch.cat((a.sin(), a.cos()), 1) for a in angles)
        return q, k + torch.cat((rows.repeat_interleave(w, 0), columns.repeat(h, 1)), 1).to(k.dtype)


class RelativePosition(NoPosition):
    """Learnable relative positions (the default, Table 8): query (i, j)'s logit of key (a, b) gains q·(rows[a − i] + columns[b − j])."""

    def __init__(self, dim: int, map_size: tuple[int, int]) -> None:
        super().__init__(dim, map_size)
        self.rows, self.columns = (
            nn.Parameter(torch.randn(2 * n - 1, dim) * dim**-0.5) for n in map_size
        )

    def fold(self, q: Heads, k: Heads, map_size: tuple[int, int]) -> tuple[Heads, Heads]:
        """Widened by h + w channels each: q by its products with the rows' and columns' embeddings, k by one-hot rows and columns."""
        (h, w), (b, heads, _, _) = map_size, q.shape
        tables = (
            (resized(table, 2 * n - 1), n) for table, n in ((self.rows, h), (self.columns, w))
        )
        # rows[i, a] = table[a − i + h − 1]: row i sees the offsets of every key from itself
        rows, columns = (
            table.unfold(0, n, 1).flip(0).transpose(1, 2).to(q.dtype) for table, n in tables
        )
        grid, products = (
            q.reshape(b, heads, h, w, -1),
            ((rows, "bnijd,iad->bnija"), (columns, "bnijd,jad->bnija")),
        )
        wide = [torch.einsum(axes, grid, table).flatten(2, 3) for table, axes in products]
        row, column = (torch.eye(n, device=k.device, dtype=k.dtype) for n in map_size)
        one_hot = torch.cat((row.repeat_interleave(w, 0), column.repeat(h, 1)), 1)
        return torch.cat((q, *wide), 3), torch.cat((k, one_hot.expand(b, heads, -1, -1)), 3)


def resized(table: Float[Tensor, "n d"], count: int) -> Float[Tensor, "m d"]:
    """A learned table for ``count`` positions or offsets: linear between its entries, the first stays first and the last last."""
    return (
        table
        if len(table) == count
        else nn.functional.interpolate(table.T[None], count, mode="linear", align_corners=True)[0].T
    )
