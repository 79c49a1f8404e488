"""Table 6: the weight λ of the attention supervision.

After `care demo`: python examples/weight.py [STEPS].
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
for weight in (0, 1, 10, 100, 250):
    c, t = streams_for("resnet18-small-half", size=48, objective=BYOL(hidden=1024))
    pretrain(
        train,
        f"runs/weight-{weight}",
        c,
        t,
        size=48,
        batch_size=32,
        steps=steps,
        optimizer=optimizer,
        attention_weight=weight,
    )
    judged = knn(c.backbone.online, train, val, size=48)
    print(f"λ = {weight}: kNN {judged.measures['top1']:.1f} %")
