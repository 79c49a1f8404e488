"""Fixed positions on a map, of which attention and vision transformers know where a token is.

A room of its own: evaluations load vision transformers, and are not done again when another
position of the T-stream changes.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def sin_cos_table(
    rows: Float[Tensor, " h"], columns: Float[Tensor, " w"], dim: int
) -> Float[Tensor, "hw dim"]:
    """Fixed positions of a map's pixels: sines and cosines of their row, then of their column.

    Args:
        rows: where they are, 0, 1, 2, … or between these.
        columns: likewise.
        dim: channels, a multiple of 4.

    Returns:
        A vector for each pixel, row by row.
    """
    frequencies = dim // 4
    index = torch.arange(frequencies, device=rows.device, dtype=rows.dtype)
    scales = 1e4 ** (-index / frequencies)
    of_rows = _sines_and_cosines(rows[:, None] * scales)
    of_columns = _sines_and_cosines(columns[:, None] * scales)
    return over_the_map(of_rows, of_columns)


def over_the_map(
    rows: Float[Tensor, "h d"], columns: Float[Tensor, "w d2"]
) -> Float[Tensor, "hw d3"]:
    """For each pixel the vector of its row, and behind it that of its column."""
    return torch.cat((rows.repeat_interleave(len(columns), 0), columns.repeat(len(rows), 1)), 1)


def _sines_and_cosines(angles: Float[Tensor, "n d"]) -> Float[Tensor, "n d2"]:
    return torch.cat((angles.sin(), angles.cos()), 1)
