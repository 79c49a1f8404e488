"""The CARE paper's method alone; from shards to a checkpoint is ``care.train``, judging ``care.evaluate``, looking ``care.show``."""

from care.attention import AbsolutePosition, NoPosition, RelativePosition, SinCosPosition, Transformer
from care.encoders import ENCODERS, Encoded, TappedEncoder, build_encoder, resnet18, resnet50, resnet50x2, resnet101, resnet152
from care.errors import CareError
from care.objectives import BYOL, BarlowTwins, MoCoV3, MomentumPair, Objective, Siamese, SimCLR, SimSiam, mlp_head, similarity_loss
from care.streams import CareLoss, CStream, CStreamOut, TStream, TStreamOut, attention_loss, care_loss, lr_at, momentum_at, streams_for

__all__ = ["BYOL", "ENCODERS", "AbsolutePosition", "BarlowTwins", "CStream", "CStreamOut", "CareError", "CareLoss", "Encoded", "MoCoV3",
           "MomentumPair", "NoPosition", "Objective", "RelativePosition", "Siamese", "SimCLR", "SimSiam", "SinCosPosition", "TStream",
           "TStreamOut", "TappedEncoder", "Transformer", "attention_loss", "build_encoder", "care_loss", "lr_at", "mlp_head", "momentum_at",
           "resnet18", "resnet50", "resnet50x2", "resnet101", "resnet152", "similarity_loss", "streams_for"]  # fmt: skip
