"""Weighted nearest neighbours on frozen features."""

from pathlib import Path

import torch
from torch.nn import functional as F

import shards
from care.encoders import Encoder
from care.evaluate.features import Accuracy, Evaluation, Features, accuracy, extract, same_classes
from care.train.run import Precision
from shards.options import Count, Natural, Positive


def knn(
    encoder: Encoder, train: shards.ShardSet, val: shards.ShardSet, *, size: Count | None = None, k: Count = 20,
    temperature: Positive = 0.07, precision: Precision = "fp32", workers: Natural = 0, cache: str | Path | None = None,
) -> Evaluation:  # fmt: skip
    """Weighted nearest neighbours on frozen features of centre crops; nothing is trained or chosen.

    Args:
        encoder: used on the device it is on.
        train: set whose labels vote.
        val: set to classify; other classes, or images without one, are a ``CareError``.
        size: side of the crops, pixels; by default that of the encoder's training.
        k: neighbours; DINO's protocol has 20, instance discrimination's 200.
        temperature: of the votes' weights; DINO's is 0.07, instance discrimination's 0.1.
        precision: of the encoder's arithmetic.
        workers: processes that decode images.
        cache: see ``extract``.
    """
    same_classes(train, val)
    size = size or encoder.size
    known, asked = (extract(encoder, data, size=size, workers=workers, precision=precision, cache=cache) for data in (train, val))
    protocol = f"weighted nearest neighbours on frozen features (k {k}, temperature {temperature:g}), centre crops of {size} px"
    return Evaluation(
        "kNN", f"{protocol}; nothing is trained or chosen", weighted_knn(known, asked, k=k, temperature=temperature)._asdict()
    )


def weighted_knn(train: Features, val: Features, *, k: int = 20, temperature: float = 0.07) -> Accuracy:
    """The ``k`` training images (or all) of highest cosine vote with weight exp(cosine / temperature) (Wu et al. 2018)."""
    keys = F.normalize(train.x, dim=1)
    scores = []
    for queries in torch.split(F.normalize(val.x, dim=1), 1024):
        cosine, nearest = (queries @ keys.T).topk(min(k, len(keys)), dim=1)
        votes = torch.zeros(len(queries), train.classes)
        scores.append(votes.scatter_add_(1, train.y[nearest], ((cosine - 1) / temperature).exp()))
    return accuracy(torch.cat(scores), val.y)
