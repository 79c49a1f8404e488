"""Table 7: the number n of attention blocks. After `care demo`: python examples/blocks.py [STEPS]."""

import sys
import shards
from care import BYOL, streams_for
from care.evaluate import knn
from care.train import SGD, pretrain

train, val, steps = shards.open("demo/train"), shards.open("demo/val"), int([*sys.argv, "250"][1])
for blocks in (2, 3, 4, 5, 6):
    c, t = streams_for("resnet18-small-half", size=48, blocks=blocks, objective=BYOL(hidden=1024))
    pretrain(
        train,
        f"runs/blocks-{blocks}",
        c,
        t,
        size=48,
        batch_size=32,
        steps=steps,
        sgd=SGD(lr=0.4, warmup=steps // 10),
    )
    print(f"n = {blocks}: kNN {knn(c.backbone.online, train, val, size=48).measures['top1']:.1f} %")
