"""The method of the CARE paper: encoders, streams, objectives, loss and schedules.

From shards to a checkpoint is ``care.train``, judging an encoder ``care.evaluate``, looking at it
``care.show``. What is here knows none of them, and no data, files or loops: networks and functions
to compose, as the README's loop does. docs/method.md says for every sentence and equation of the
paper where it is, and which test holds it; ``tests/care/test_released.py`` compares three training
steps with the authors' code.
"""

from care.attention import Transformer
from care.encoded import Encoded
from care.encoders import (
    ENCODERS,
    build_encoder,
    resnet18,
    resnet34,
    resnet50,
    resnet50x2,
    resnet101,
    resnet152,
)
from care.errors import CareError
from care.heads import mlp_head
from care.loss import CareLoss, attention_loss, care_loss
from care.momentum import MomentumPair, Siamese
from care.objectives import (
    BYOL,
    CMC,
    PIRL,
    BarlowTwins,
    BYOLViT,
    Criterion,
    InfoMin,
    MoCoV1,
    MoCoV2,
    MoCoV3,
    MoCoV3ViT,
    Objective,
    SimCLR,
    SimSiam,
    SwAV,
)
from care.positions import AbsolutePosition, NoPosition, RelativePosition, SinCosPosition
from care.schedules import lr_at, momentum_at
from care.similarity import similarity_loss
from care.streams import (
    CStream,
    CStreamOut,
    TStream,
    TStreamOut,
    c_stream_for,
    streams_for,
)
from care.tapped import TappedEncoder
from care.vit import VITS, ViTEncoder

__all__ = [
    "BYOL",
    "CMC",
    "ENCODERS",
    "PIRL",
    "VITS",
    "AbsolutePosition",
    "BYOLViT",
    "BarlowTwins",
    "CStream",
    "CStreamOut",
    "CareError",
    "CareLoss",
    "Criterion",
    "Encoded",
    "InfoMin",
    "MoCoV1",
    "MoCoV2",
    "MoCoV3",
    "MoCoV3ViT",
    "MomentumPair",
    "NoPosition",
    "Objective",
    "RelativePosition",
    "Siamese",
    "SimCLR",
    "SimSiam",
    "SinCosPosition",
    "SwAV",
    "TStream",
    "TStreamOut",
    "TappedEncoder",
    "Transformer",
    "ViTEncoder",
    "attention_loss",
    "build_encoder",
    "c_stream_for",
    "care_loss",
    "lr_at",
    "mlp_head",
    "momentum_at",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet50x2",
    "resnet101",
    "resnet152",
    "similarity_loss",
    "streams_for",
]
