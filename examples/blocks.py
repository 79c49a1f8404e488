"""Table 7: the number n of attention blocks.

After `care demo`: python examples/blocks.py [STEPS].
"""

import sys
import shards
from care import BYOL, streams_for
from care.evaluate import knn
from care.train import SGD, pretrain

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 250
train = shards.open("demo/train")
val = shards.open("demo/val")
optimizer = SGD(lr=0.4, warmup=steps // 10)
for blocks in (2, 3, 4, 5, 6):
    c, t = streams_for("resnet18-small-half", size=48, blocks=blocks, objective=BYOL(hidden=1024))
    run = f"runs/blocks-{blocks}"
    pretrain(train, run, c, t, size=48, batch_size=32, steps=steps, optimizer=optimizer)
    judged = knn(c.backbone.online, train, val, size=48)
    print(f"n = {blocks}: kNN {judged.measures['top1']:.1f} %")
