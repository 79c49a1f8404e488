"""A queue of the embeddings of earlier batches."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.errors import CareError


class KeyQueue(nn.Module):
    """The newest keys, the oldest of which each batch replaces.

    Args:
        size: number of keys.
        dim: channels of a key.

    Attributes:
        keys: unit vectors [size, dim], random ones at first.
        taken: number of keys that were taken up so far.

    Source: He et al. 2020, Momentum contrast for unsupervised visual representation learning.
    """

    keys: Float[Tensor, "k d"]
    taken: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", nn.functional.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))

    def is_full(self) -> bool:
        """Whether no random key is left."""
        return int(self.taken) >= len(self.keys)

    def check(self, count: int) -> None:
        """Refuse batches of which the queue does not hold a multiple.

        Args:
            count: keys of a batch.

        Raises:
            CareError: It does not; the message has the nearest sizes that do.
        """
        size = len(self.keys)
        if size % count == 0:
            return
        smaller = size // count * count
        sizes = f"{smaller:,} or {smaller + count:,}" if smaller else f"{count:,}"
        raise CareError(
            f"a queue of {size:,} keys does not hold whole batches of {count:,}; wanted a queue of "
            f"{sizes}, or another batch size"
        )

    @torch.no_grad()
    def replace_oldest(self, keys: Float[Tensor, "n d"]) -> None:
        """Take up the keys of a batch.

        Args:
            keys: unit vectors, of a number that ``check`` lets pass.
        """
        start = int(self.taken) % len(self.keys)
        self.keys[start : start + len(keys)] = keys.to(self.keys.dtype)
        self.taken += len(keys)
