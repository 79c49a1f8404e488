"""A bank of an embedding of every image, and the contrast of a batch with it."""

from typing import Literal
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from care.errors import CareError
from care.similarity import unit

# how an image is told from others: by noise-contrastive estimation, or among all at once
Contrast = Literal["nce", "softmax"]


class Bank(nn.Module):
    """An embedding of each image of a set.

    Args:
        images: of the set.
        dim: channels of an embedding.
        momentum: share of its former self in an embedding that is renewed.

    Attributes:
        embeddings: unit vectors [images, dim] by the number of their image, random ones at first.

    Source: Wu et al. 2018, Unsupervised feature learning via non-parametric instance
    discrimination.
    """

    embeddings: Float[Tensor, "n d"]

    def __init__(self, images: int, dim: int, *, momentum: float = 0.5) -> None:
        super().__init__()
        self.momentum = momentum
        directions = nn.functional.normalize(torch.randn(images, dim), dim=1)
        self.register_buffer("embeddings", directions)

    def check(self, images: int) -> None:
        """Refuse a set that the bank has no places for.

        Args:
            images: of the set.

        Raises:
            CareError: It has more than the bank, or fewer.
        """
        if images != len(self.embeddings):
            raise CareError(
                f"a bank of {len(self.embeddings):,} images is for sets of so many, and this one"
                f" has {images:,}; wanted an objective with images={images}"
            )

    @torch.no_grad()
    def renew(self, samples: Int[Tensor, " b"], embeddings: Float[Tensor, "b d"]) -> None:
        """Move the embeddings of some images towards new ones.

        Args:
            samples: numbers of the images, no two of them equal.
            embeddings: unit vectors.
        """
        former = self.embeddings[samples]
        moved = self.momentum * former + (1 - self.momentum) * embeddings.to(former.dtype)
        self.embeddings[samples] = nn.functional.normalize(moved, dim=1)


class Negatives(nn.Module):
    """The images that those of a batch are told from, drawn anew at every step.

    They are the same for all images of a batch: the released codes of CMC and PIRL draw them for
    each image, which costs a copy of the bank's rows for each.

    Args:
        count: how many are drawn.

    Attributes:
        seed: of the draws, drawn as the weights are.
        steps: that were taken.
    """

    seed: Tensor
    steps: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.register_buffer("seed", torch.randint(2**62, ()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def draw(self, images: int) -> Int[Tensor, " k"]:
        """Draw the images of a step.

        Args:
            images: in the bank.

        Returns:
            Their numbers; where as many are wanted as there are, all.
        """
        device = self.seed.device
        if self.count >= images:
            return torch.arange(images, device=device)
        generator = torch.Generator().manual_seed(int(self.seed) + int(self.steps))
        return torch.randint(images, (self.count,), generator=generator).to(device)

    def after_step(self) -> None:
        """Go on to the next step."""
        self.steps += 1


class BankContrast(nn.Module):
    """Tell each image's place in a bank from those of other images.

    An image is not told from itself.

    Args:
        temperature: τ, by which cosines are divided.
        contrast: "softmax", or "nce" with the partition function of the first batch.

    Attributes:
        partition: Z of the noise-contrastive estimation; negative until it is set.
    """

    partition: Tensor

    def __init__(self, temperature: float, contrast: Contrast) -> None:
        super().__init__()
        self.temperature = temperature
        self.contrast = contrast
        self.register_buffer("partition", torch.tensor(-1.0))

    def forward(
        self,
        embeddings: Float[Tensor, "b d"],
        bank: Float[Tensor, "n d"],
        samples: Int[Tensor, " b"],
        negatives: Int[Tensor, " k"],
    ) -> Float[Tensor, ""]:
        """Compute the loss of a batch.

        Args:
            embeddings: with gradient.
            bank: of all images.
            samples: numbers of the images of the batch.
            negatives: numbers of those that they are told from.
        """
        queries = unit(embeddings)
        places = bank.to(queries.dtype)
        positives = (queries * places[samples]).sum(1, keepdim=True)
        others = queries @ places[negatives].T
        is_itself = samples[:, None] == negatives[None, :]
        others = others.masked_fill(is_itself, -torch.inf)
        logits = torch.cat((positives, others), dim=1) / self.temperature
        if self.contrast == "softmax":
            first = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
            return nn.functional.cross_entropy(logits, first)
        return self._estimate(logits, len(bank))

    def _estimate(self, logits: Float[Tensor, "b m"], images: int) -> Float[Tensor, ""]:
        """The loss of noise-contrastive estimation, its noise even among the images."""
        weights = logits.exp()
        if float(self.partition) < 0:
            self.partition.fill_(float(weights.detach().mean()) * images)
        shares = weights / self.partition
        noise = (logits.shape[1] - 1) / images
        positives = shares[:, 0]
        of_positives = (positives / (positives + noise)).log()
        of_others = (noise / (shares[:, 1:] + noise)).log().sum(1)
        return -(of_positives + of_others).mean()
