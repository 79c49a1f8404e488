"""Sec. 4.3: the transformer behind the encoder in one stream, against both in parallel. After `care demo`: as weight.py."""

import sys
import torch
import shards
from care import BYOL, CStream, Encoded, MomentumPair, Transformer, resnet18, streams_for
from care.evaluate import knn
from care.train import SGD, pretrain


class Sequential(torch.nn.Module):
    """The encoder's last map through the transformer."""

    def __init__(self):
        super().__init__()
        self.encoder, self.transformer = (
            resnet18(small=True, half=True, tap="layer4"),
            Transformer(256, 256, map_size=(3, 3)),
        )
        self.features = 256

    def forward(self, images):
        last = self.encoder(images).map
        return Encoded(last, self.transformer(last))


torch.manual_seed(0)
train, val, steps = shards.open("demo/train"), shards.open("demo/val"), int([*sys.argv, "250"][1])
one_stream = CStream(MomentumPair(Sequential()), BYOL(hidden=1024))
c, t = streams_for("resnet18-small-half", size=48, objective=BYOL(hidden=1024))
for name, streams, encoder in (
    ("sequential", (one_stream,), one_stream.backbone.online.encoder),
    ("parallel", (c, t), c.backbone.online),
):
    pretrain(
        train,
        f"runs/{name}",
        *streams,
        size=48,
        batch_size=32,
        steps=steps,
        sgd=SGD(lr=0.4, warmup=steps // 10),
    )
    print(f"{name}: kNN {knn(encoder, train, val, size=48).measures['top1']:.1f} %")
