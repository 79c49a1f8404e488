"""Sec. 4.3: the transformer behind the encoder in one stream, against both in parallel.

After `care demo`: python examples/sequential.py [STEPS].
"""

import sys
import shards
from care import BYOL, streams_for
from care.evaluate import knn
from care.sequential import sequential_stream
from care.train import SGD, pretrain

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 250
train = shards.open("demo/train")
val = shards.open("demo/val")
optimizer = SGD(lr=0.4, warmup=steps // 10)
objective = BYOL(hidden=1024)

one_stream = sequential_stream("resnet18-small-half:layer4", size=48, objective=objective)
pretrain(
    train, "runs/sequential", one_stream, size=48, batch_size=32, steps=steps, optimizer=optimizer
)
judged = knn(one_stream.backbone.online.encoder, train, val, size=48)
print(f"sequential: kNN {judged.measures['top1']:.1f} %")

c, t = streams_for("resnet18-small-half", size=48, objective=objective)
pretrain(train, "runs/parallel", c, t, size=48, batch_size=32, steps=steps, optimizer=optimizer)
judged = knn(c.backbone.online, train, val, size=48)
print(f"parallel: kNN {judged.measures['top1']:.1f} %")
