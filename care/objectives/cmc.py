"""CMC: tell an image's colours by its lightness, and its lightness by its colours."""

from dataclasses import dataclass
from typing import ClassVar
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from care.errors import CareError
from care.momentum import Pair, Siamese
from care.objectives.bank import Bank, BankContrast, Contrast, Negatives
from care.objectives.criterion import Criterion
from care.objectives.objective import Objective, describe_views
from care.similarity import Embeddings, unit


@dataclass(frozen=True)
class CMC(Objective):
    """Tell the place of an image in a bank of colours by its lightness, and the other way round.

    The encoder is one of two networks, such as ``build_encoder("lab:resnet50")``, and so are
    the heads: an embedding of ``dim`` channels is one half of lightness and one of colour. The
    view is one of the image; a second one, for a T-stream beside it, counts as the first one does.

    Attributes:
        images: of the set, each of which has a place in both banks; ImageNet's.
        negatives: other images that each is told from.
        temperature: τ, by which cosines are divided.
        bank_momentum: share of its former self in an embedding of a bank that is renewed.
        contrast: "nce" or "softmax".

    Source: Tian, Krishnan and Isola 2020, Contrastive multiview coding.
    """

    hidden: int = 2048
    dim: int = 256
    images: int = 1_281_167
    negatives: int = 16_384
    temperature: float = 0.07
    bank_momentum: float = 0.5
    contrast: Contrast = "nce"
    pair: ClassVar[type[Pair]] = Siamese
    branches: ClassVar[int] = 2

    def projector(self, inputs: int) -> nn.Module:
        """Make a linear head for each half of the features; ``hidden`` is that of a T-stream."""
        return HalvesHead(inputs, self.dim)

    def check_views(self, images: int, puzzles: int = 0) -> None:
        """Refuse all but one or two views of an image."""
        if images not in (1, 2) or puzzles:
            raise CareError(
                "CMC learns from 1 view of an image, or 2 beside a T-stream, got"
                f" {describe_views(images, puzzles)}"
            )

    def criterion(self) -> Criterion:
        """Make both banks, and the contrasts with them."""
        return CrossContrast(self)


class HalvesHead(nn.Module):
    """A linear layer for each half of features, and the embeddings beside each other.

    Args:
        inputs: channels of the features.
        outputs: channels of the embeddings.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.lightness = nn.Linear(inputs // 2, outputs // 2)
        self.colour = nn.Linear(inputs // 2, outputs // 2)

    def forward(self, features: Float[Tensor, "b _"]) -> Float[Tensor, "b d"]:
        """Embed pooled features, of which the first half is that of lightness."""
        of_lightness, of_colour = features.chunk(2, dim=1)
        return torch.cat((self.lightness(of_lightness), self.colour(of_colour)), dim=1)


class CrossContrast(Criterion):
    """The loss of CMC, and its banks.

    Args:
        objective: whose settings these are.

    Attributes:
        lightness: bank of the embeddings of lightness, renewed by the first view.
        colour: that of colour.
        negatives: that each image is told from, in both directions.
    """

    uses_samples: ClassVar[bool] = True

    def __init__(self, objective: CMC) -> None:
        super().__init__()
        half = objective.dim // 2
        momentum = objective.bank_momentum
        self.lightness = Bank(objective.images, half, momentum=momentum)
        self.colour = Bank(objective.images, half, momentum=momentum)
        self.by_lightness = BankContrast(objective.temperature, objective.contrast)
        self.by_colour = BankContrast(objective.temperature, objective.contrast)
        self.negatives = Negatives(objective.negatives)
        self._new: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(
        self, online: Embeddings, target: Embeddings, samples: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, ""]:
        """Compute the sum of both directions, the mean over the views."""
        assert samples is not None  # a stream makes sure
        lightness, colour = self.lightness.embeddings, self.colour.embeddings
        negatives = self.negatives.draw(len(lightness))
        losses = []
        halves = [view.chunk(2, dim=1) for view in online]
        for of_lightness, of_colour in halves:
            by_lightness = self.by_lightness(of_lightness, colour, samples, negatives)
            by_colour = self.by_colour(of_colour, lightness, samples, negatives)
            losses.append(by_lightness + by_colour)
        first = [unit(half.detach()) for half in halves[0]]
        self._new.append((samples, first[0], first[1]))
        return torch.stack(losses).mean()

    def check_set(self, images: int) -> None:
        """Refuse a set of another number of images than the banks have places."""
        self.lightness.check(images)

    def after_step(self, parts: int = 1) -> None:
        """Renew the banks, and count the step.

        Args:
            parts: into which the batch was cut.
        """
        for samples, lightness, colour in self._new[-parts:]:
            self.lightness.renew(samples, lightness)
            self.colour.renew(samples, colour)
        self._new.clear()
        self.negatives.after_step()
