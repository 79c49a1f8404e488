"""An SSL method of one's own as the C-stream, VICReg here.

After `care demo`: python examples/objective.py [STEPS].
"""

import sys
from dataclasses import dataclass
from typing import ClassVar
import torch
from torch.nn import functional as F
import shards
from care import Objective, Siamese, mlp_head, streams_for
from care.evaluate import knn
from care.train import SGD, pretrain


@dataclass(frozen=True)
class VICReg(Objective):
    """Bardes, Ponce and LeCun 2022: equal embeddings, of unit variance, uncorrelated."""

    hidden: int = 8192
    dim: int = 8192
    pair: ClassVar = Siamese  # there is no momentum encoder

    def projector(self, inputs):
        return mlp_head(inputs, hidden=self.hidden, outputs=self.dim, layers=3)

    def loss(self, online, target):
        loss = 25 * F.mse_loss(*online)
        for embeddings in online:
            z = embeddings.float() - embeddings.float().mean(0)
            loss = loss + 25 * F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() / 2
            covariance = z.T @ z / (len(z) - 1)
            off_diagonal = covariance.square().sum() - covariance.diagonal().square().sum()
            loss = loss + off_diagonal / self.dim
        return loss


if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 250
    train = shards.open("demo/train")
    val = shards.open("demo/val")
    optimizer = SGD(lr=0.1, warmup=steps // 10)
    torch.manual_seed(0)
    c, t = streams_for("resnet18-small-half", size=48, objective=VICReg(hidden=1024, dim=256))
    pretrain(train, "runs/vicreg", c, t, size=48, batch_size=32, steps=steps, optimizer=optimizer)
    judged = knn(c.backbone.online, train, val, size=48)
    print(f"VICReg under CARE: kNN {judged.measures['top1']:.1f} %")
