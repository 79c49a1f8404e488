"""PIRL: tell an image, and what its shuffled patches are, from other images of the set."""

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
from care.objectives.puzzle_head import PuzzleHead
from care.similarity import Embeddings, unit


@dataclass(frozen=True)
class PIRL(Objective):
    """Tell an image's embedding in a bank from others, by the image and by its patches.

    Views are the image and nine patches of it (``View(patch=64)``); a second view of the image, for
    a T-stream beside it, counts as the first one does. The defaults are those of the released code;
    ``PIRL(contrast="softmax", negatives=65_536)`` is the reproduction by InfoMin's authors, whose
    weights the detection rows of the paper's Tables 4 and 5 are of.

    Attributes:
        images: of the set, each of which has a place in the bank; ImageNet's.
        negatives: other images that each is told from.
        temperature: τ, by which cosines are divided.
        bank_momentum: share of its former self in an embedding of the bank that is renewed.
        patches_weight: of the loss of the patches; that of the image is the rest of 1.
        contrast: "nce" or "softmax".

    Source: Misra and van der Maaten 2020, Self-supervised learning of pretext-invariant
    representations.
    """

    hidden: int = 2048
    dim: int = 128
    images: int = 1_281_167
    negatives: int = 32_000
    temperature: float = 0.07
    bank_momentum: float = 0.5
    patches_weight: float = 0.5
    contrast: Contrast = "nce"
    pair: ClassVar[type[Pair]] = Siamese

    def projector(self, inputs: int) -> nn.Module:
        """Make a linear head; ``hidden`` is that of a T-stream beside it."""
        return nn.Linear(inputs, self.dim)

    def puzzle_head(self, inputs: int) -> nn.Module | None:
        """Make a linear head for each patch, and one for all of them."""
        return PuzzleHead(nn.Linear(inputs, self.dim), self.dim)

    def check_views(self, images: int, puzzles: int = 0) -> None:
        """Refuse all but one or two views of an image, and one of patches."""
        if images not in (1, 2) or puzzles != 1:
            raise CareError(
                "PIRL learns from 1 view of an image, or 2 beside a T-stream, and 1 of its patches,"
                f" got {describe_views(images, puzzles)}; View(size=255, patch=64) is one"
            )

    def criterion(self) -> Criterion:
        """Make a bank, and the contrast with it."""
        return PuzzleContrast(self)


class PuzzleContrast(Criterion):
    """The loss of PIRL, and its bank.

    Args:
        objective: whose settings these are.

    Attributes:
        bank: an embedding of each image, renewed by its first view.
        negatives: that each image is told from.
    """

    uses_samples: ClassVar[bool] = True

    def __init__(self, objective: PIRL) -> None:
        super().__init__()
        self.objective = objective
        self.bank = Bank(objective.images, objective.dim, momentum=objective.bank_momentum)
        self.contrast = BankContrast(objective.temperature, objective.contrast)
        self.negatives = Negatives(objective.negatives)
        self._new: list[tuple[Tensor, Tensor]] = []

    def forward(
        self, online: Embeddings, target: Embeddings, samples: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, ""]:
        """Compute the weighted mean of the losses of image and patches."""
        assert samples is not None  # a stream makes sure
        *images, patches = online
        rows = self.bank.embeddings
        negatives = self.negatives.draw(len(rows))
        of_images = [self.contrast(image, rows, samples, negatives) for image in images]
        of_patches: Tensor = self.contrast(patches, rows, samples, negatives)
        self._new.append((samples, unit(images[0].detach())))
        weight = self.objective.patches_weight
        return (1 - weight) * torch.stack(of_images).mean() + weight * of_patches

    def check_set(self, images: int) -> None:
        """Refuse a set of another number of images than the bank has places."""
        self.bank.check(images)

    def after_step(self, parts: int = 1) -> None:
        """Renew the bank, and count the step.

        Args:
            parts: into which the batch was cut.
        """
        for samples, embeddings in self._new[-parts:]:
            self.bank.renew(samples, embeddings)
        self._new.clear()
        self.negatives.after_step()
