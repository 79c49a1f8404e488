"""Table 8: the position encoding of the attention, the streams put together by hand.

After `care demo`: python examples/positions.py [STEPS].
"""

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

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 250
train = shards.open("demo/train")
val = shards.open("demo/val")
optimizer = SGD(lr=0.4, warmup=steps // 10)
objective = BYOL(hidden=1024)
for position in (NoPosition, SinCosPosition, AbsolutePosition, RelativePosition):
    torch.manual_seed(0)
    encoder = resnet18(small=True, half=True)
    c = CStream(MomentumPair(encoder), objective)
    transformer = Transformer(128, 256, map_size=(6, 6), position=position)
    t = TStream(MomentumPair(transformer), objective)
    run = f"runs/{position.__name__}"
    pretrain(train, run, c, t, size=48, batch_size=32, steps=steps, optimizer=optimizer)
    judged = knn(encoder, train, val, size=48)
    print(f"{position.__name__}: kNN {judged.measures['top1']:.1f} %")
