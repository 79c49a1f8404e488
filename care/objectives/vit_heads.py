"""MoCo v3 and BYOL for vision transformers: deeper heads, all with batch norm on their outputs."""

from dataclasses import dataclass
from torch import nn
from care.heads import mlp_head
from care.objectives.byol import BYOL
from care.objectives.moco_v3 import MoCoV3


class ViTHeads(BYOL):
    """The heads of MoCo v3's frame for ViT: a projector of three layers, a predictor of two.

    No layer has a bias, and batch norms without scale and shift are behind both heads.

    Source: Chen, Xie and He 2021, Sec. 4 and the code's ``MoCo_ViT``.
    """

    def projector(self, inputs: int) -> nn.Module:
        """Make the head of both networks."""
        return mlp_head(
            inputs, hidden=self.hidden, outputs=self.dim, layers=3, norm=True, bias=False
        )

    def predictor(self) -> nn.Module:
        """Make the online network's second head."""
        return mlp_head(self.dim, hidden=self.hidden, outputs=self.dim, norm=True, bias=False)


@dataclass(frozen=True)
class MoCoV3ViT(ViTHeads, MoCoV3):
    """MoCo v3 as its authors train ViT with it.

    Attributes:
        temperature: τ, by which cosines are divided; theirs for ViT.
    """

    temperature: float = 0.2


@dataclass(frozen=True)
class BYOLViT(ViTHeads):
    """BYOL in the same frame, as MoCo v3's authors compare it."""
