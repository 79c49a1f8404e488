"""Linear classifiers side by side: for each learning rate one that chooses it and one that is kept.

All learning rates are trained in one pass. Of every rate there are two classifiers: one never sees
the held-out part of train, on which the rates are compared; the other sees all of train, and is
the one that is scored on val.
"""

from collections.abc import Iterable
from dataclasses import dataclass
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from care.encoded import evaluating
from care.errors import CareError
from care.evaluate.predictions import TOP
from shards.order import permutation

MOST_HELD_OUT = 10_000  # images that choose the learning rate; BYOL's number
DEVIATION = 0.01  # of the initial weights; those of MoCo's and the released code's classifier
ROWS_AT_ONCE = 1024  # images that are scored


@dataclass(frozen=True)
class HeadTraining:
    """How linear classifiers are trained.

    Attributes:
        lrs: learning rates to choose from, for 256 images a step.
        epochs: passes over train.
        batch_size: images a step.
        norm: batch norm after the layer.
        held_out: share of train that chooses the learning rate, at most 10,000 images.
        seed: of the layer's weights, the held-out part and the order.
    """

    lrs: tuple[float, ...]
    epochs: int
    batch_size: int
    norm: bool
    held_out: float
    seed: int


class LinearHeads(nn.Module):
    """Two linear classifiers for each learning rate, side by side in one layer.

    The first of each does not see the images that choose the rate, the second sees all.

    Args:
        features: width of what is classified.
        classes: how many.
        lrs: learning rates.
        norm: whether batch norm comes after the layer.
        seed: of the weights, which are the same for all classifiers.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        lrs: tuple[float, ...],
        norm: bool,
        seed: int,
    ) -> None:
        super().__init__()
        self.shape = (2, len(lrs), classes)
        # on the meta device, where it draws no random numbers
        linear = nn.Linear(features, 2 * len(lrs) * classes, device="meta")
        self.linear = linear.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(classes, features, generator=generator) * DEVIATION
        self.linear.weight.data = weight.repeat(2 * len(lrs), 1)
        nn.init.zeros_(self.linear.bias)
        self.norm = nn.BatchNorm1d(self.linear.out_features) if norm else nn.Identity()
        self.rates = torch.tensor(lrs)

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b 2 m classes"]:
        """Logits of all classifiers, on the layer's device."""
        return torch.unflatten(self.norm(self.linear(x)), 1, self.shape)

    def loss(
        self,
        x: Float[Tensor, "b d"],
        y: Int[Tensor, " b"],
        chooses_not: Bool[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        """Sum of the classifiers' cross-entropies, each times its learning rate.

        With momentum SGD at rate 1, each classifier is then trained at its own rate.

        Args:
            x: features of a batch.
            y: classes by number, on any device.
            chooses_not: whether an image is not held out, on any device.
        """
        logits = self(x)
        y = y.to(x.device)
        chooses_not = chooses_not.to(x.device)
        classifiers = self.shape[0] * self.shape[1]
        cross_entropies = nn.functional.cross_entropy(
            logits.flatten(0, 2), y.repeat_interleave(classifiers), reduction="none"
        )
        # each of the two means is over the images that its classifier sees
        of_those_that_choose_not = chooses_not / chooses_not.sum().clamp_min(1)
        of_all = torch.full_like(y, 1, dtype=cross_entropies.dtype) / len(y)
        weights = torch.stack((of_those_that_choose_not, of_all), 1)[:, :, None]
        cross_entropies = cross_entropies.view(len(y), *self.shape[:2])
        return (cross_entropies * weights * self.rates.to(cross_entropies)).sum()

    @torch.no_grad()
    def rankings(self, parts: Iterable[Float[Tensor, "b d"]]) -> Int[Tensor, "n 2 m top"]:
        """The first predictions of all classifiers, the surest first.

        Args:
            parts: features of all images, in order; each is sent to the layer's device.

        Returns:
            Five classes, or all where fewer, by image, part of train and learning rate, on the CPU,
            with the running statistics of the norm.
        """
        most = min(TOP, self.shape[2])
        predictions = []
        with evaluating(self):
            for part in parts:
                logits = self(part.to(self.linear.weight))
                predictions.append(logits.topk(most, 3).indices.cpu())
        return torch.cat(predictions)

    def scores(
        self,
        parts: Iterable[Float[Tensor, "b d"]],
        y: Int[Tensor, " n"],
    ) -> Float[Tensor, "2 m"]:
        """Top-1 of all classifiers, per cent, by part of train and learning rate."""
        right = self.rankings(parts)[..., 0] == y[:, None, None].cpu()
        return 100 * right.float().mean(0)


def held_out_rows(count: int, share: float, seed: int) -> Int[Tensor, " n"]:
    """Numbers of the training images that choose the learning rate.

    Args:
        count: images in train.
        share: of them, at most 10,000 images.
        seed: decides which.

    Raises:
        CareError: there are too few to hold some out.
    """
    order = permutation(count, seed=seed, stream=0)
    rows = torch.from_numpy(order[: min(round(count * share), MOST_HELD_OUT)])
    if not 0 < len(rows) < count:
        raise CareError(f"cannot hold {share:.0%} of {count} training images out; use a larger set")
    return rows
