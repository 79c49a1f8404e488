"""Linear classifiers side by side, two for each learning rate."""

from collections.abc import Iterable, Sequence
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from care import CareError
from care.encoded import evaluating
from shards.order import permutation


class LinearHeads(nn.Module):
    """Two linear classifiers for each learning rate by side in one layer: of the images that choose no rate, and of all."""

    def __init__(
        self, features: int, classes: int, lrs: Sequence[float], norm: bool, seed: int
    ) -> None:
        super().__init__()
        self.shape = (2, len(lrs), classes)
        self.linear = nn.Linear(features, 2 * len(lrs) * classes, device="meta").to_empty(
            device="cpu"
        )  # draws nothing
        weight = (
            torch.randn(classes, features, generator=torch.Generator().manual_seed(seed)) * 0.01
        )
        self.linear.weight.data = weight.repeat(2 * len(lrs), 1)
        nn.init.zeros_(self.linear.bias)
        self.norm = nn.BatchNorm1d(self.linear.out_features) if norm else nn.Identity()
        self.rates = torch.tensor(lrs)

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b 2 m classes"]:
        return torch.unflatten(self.norm(self.linear(x)), 1, self.shape)

    def loss(
        self, x: Float[Tensor, "b d"], y: Int[Tensor, " b"], chooses_not: Bool[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        """Sum of the classifiers' cross-entropies times their learning rates: with momentum SGD at rate 1, each is trained at its own."""
        logits, y, chooses_not = self(x).flatten(0, 2), y.to(x.device), chooses_not.to(x.device)
        each = nn.functional.cross_entropy(
            logits, y.repeat_interleave(len(logits) // len(y)), reduction="none"
        )
        shares = torch.stack(
            (
                chooses_not / chooses_not.sum().clamp_min(1),
                torch.full_like(y, 1, dtype=each.dtype) / len(y),
            ),
            1,
        )
        return (each.view(len(y), *self.shape[:2]) * shares[:, :, None] * self.rates.to(each)).sum()

    @torch.no_grad()
    def hits(
        self,
        parts: Iterable[Float[Tensor, "b d"]],
        y: Int[Tensor, " n"],
    ) -> Bool[Tensor, "n 2 2 m"]:
        """Whether an image is among the first and the five first predictions of all classifiers.

        Args:
            parts: features of all images, in order; each is sent to the layer's device.
            y: classes by number.

        Returns:
            By image, first or five first, part of train, and learning rate, on the CPU, with the
            running statistics of the norm.
        """
        best = min(5, self.shape[2])
        with evaluating(self):
            tops = [self(part.to(self.linear.weight)).topk(best, 3).indices.cpu() for part in parts]
        right = torch.cat(tops) == y[:, None, None, None].cpu()
        return torch.stack((right[..., 0], right.any(3)), 1)

    def scores(
        self,
        parts: Iterable[Float[Tensor, "b d"]],
        y: Int[Tensor, " n"],
    ) -> Float[Tensor, "2 2 m"]:
        """Top-1 and top-5, per cent, of all classifiers: the mean of ``hits``."""
        return percent(self.hits(parts, y))


def percent(right: Bool[Tensor, "n ..."]) -> Float[Tensor, "..."]:
    """How many of the images, by whatever else there is."""
    return 100 * right.float().mean(0)


def held_out_rows(count: int, share: float, seed: int) -> Int[Tensor, " n"]:
    """Numbers of the training images that choose the learning rate, at most BYOL's 10,000; a ``CareError`` if there are too few."""
    chosen = torch.from_numpy(
        permutation(count, seed=seed, stream=0)[: min(round(count * share), 10_000)]
    )
    if not 0 < len(chosen) < count:
        raise CareError(f"cannot hold {share:.0%} of {count} training images out; use a larger set")
    return chosen
