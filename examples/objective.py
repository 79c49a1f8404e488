"""An SSL method of one's own as the C-stream, VICReg here. After `care demo`: python examples/objective.py [STEPS]."""

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
    """Bardes, Ponce & LeCun 2022: equal embeddings, of unit variance, uncorrelated."""

    hidden: int = 8192
    dim: int = 8192
    pair: ClassVar = Siamese  # there is no momentum encoder

    def projector(self, inputs):
        return mlp_head(inputs, hidden=self.hidden, outputs=self.dim, layers=3)

    def loss(self, online, target):
        loss = 25 * F.mse_loss(*online)
        for z in online:
            z = z.float() - z.float().mean(0)
            loss = loss + 25 * F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() / 2
            covariance = z.T @ z / (len(z) - 1)
            loss = (
                loss + (covariance.square().sum() - covariance.diagonal().square().sum()) / self.dim
            )
        return loss


if __name__ == "__main__":
    train, val, steps = (
        shards.open("demo/train"),
        shards.open("demo/val"),
        int([*sys.argv, "250"][1]),
    )
    torch.manual_seed(0)
    c, t = streams_for("resnet18-small-half", size=48, objective=VICReg(hidden=1024, dim=256))
    pretrain(
        train,
        "runs/vicreg",
        c,
        t,
        size=48,
        batch_size=32,
        steps=steps,
        sgd=SGD(lr=0.1, warmup=steps // 10),
    )
    print(
        f"VICReg under CARE: kNN {knn(c.backbone.online, train, val, size=48).measures['top1']:.1f} %"
    )
