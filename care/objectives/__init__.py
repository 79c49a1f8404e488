"""What a stream learns by: heads, a loss, and what a method keeps from step to step.

The paper's is BYOL, for both streams (Sec. 3.1). The others are here because the T-stream and its
supervision work beside any of them; docs/objectives.md shows how, and how to write one. An
objective is a frozen value: its ``repr`` says all that it is, and goes into a run's settings. What
it keeps, such as a queue or prototypes, is in its criterion, a module of the stream that is saved
and restored with the weights. tests/care/objectives compares each with a naive loop over the
formula of its paper.
"""

from care.objectives.barlow_twins import BarlowTwins
from care.objectives.byol import BYOL
from care.objectives.cmc import CMC
from care.objectives.criterion import Criterion
from care.objectives.infomin import InfoMin
from care.objectives.moco import MoCoV1, MoCoV2
from care.objectives.moco_v3 import MoCoV3
from care.objectives.objective import Objective
from care.objectives.pirl import PIRL
from care.objectives.simclr import SimCLR
from care.objectives.simsiam import SimSiam
from care.objectives.swav import SwAV
from care.objectives.vit_heads import BYOLViT, MoCoV3ViT

__all__ = [
    "BYOL",
    "CMC",
    "PIRL",
    "BYOLViT",
    "BarlowTwins",
    "Criterion",
    "InfoMin",
    "MoCoV1",
    "MoCoV2",
    "MoCoV3",
    "MoCoV3ViT",
    "Objective",
    "SimCLR",
    "SimSiam",
    "SwAV",
]
