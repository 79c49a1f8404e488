"""Table 6: the weight λ of the attention supervision. After `care demo`: python examples/weight.py [STEPS]."""

import sys
import shards
from care import BYOL, streams_for
from care.evaluate import knn
from care.train import SGD, pretrain

train, val, steps = shards.open("demo/train"), shards.open("demo/val"), int([*sys.argv, "250"][1])
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
        sgd=SGD(lr=0.4, warmup=steps // 10),
        attention_weight=weight,
    )
    print(f"λ = {weight}: kNN {knn(c.backbone.online, train, val, size=48).measures['top1']:.1f} %")
