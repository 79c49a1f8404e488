"""Table 8: the position encoding of the attention. After `care demo`: python examples/positions.py [STEPS]."""

import sys
import torch
import shards
from care import (
    BYOL,
    AbsolutePosition,
    CStream,
    MomentumPair,
    NoPosition,
    RelativePosition,
    SinCosPosition,
    Transformer,
    TStream,
    resnet18,
)
from care.evaluate import knn
from care.train import SGD, pretrain

train, val, steps = shards.open("demo/train"), shards.open("demo/val"), int([*sys.argv, "250"][1])
for position in (NoPosition, SinCosPosition, AbsolutePosition, RelativePosition):
    torch.manual_seed(0)
    encoder = resnet18(small=True, half=True)
    c = CStream(MomentumPair(encoder), BYOL(hidden=1024))
    t = TStream(
        MomentumPair(Transformer(128, 256, map_size=(6, 6), position=position)), BYOL(hidden=1024)
    )
    pretrain(
        train,
        f"runs/{position.__name__}",
        c,
        t,
        size=48,
        batch_size=32,
        steps=steps,
        sgd=SGD(lr=0.4, warmup=steps // 10),
    )
    print(f"{position.__name__}: kNN {knn(encoder, train, val, size=48).measures['top1']:.1f} %")
