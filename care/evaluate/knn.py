"""Weighted nearest neighbours on frozen features."""

import torch
from torch.nn import functional as F

from care.evaluate.features import Accuracy, Features, accuracy


def knn(train: Features, val: Features, *, k: int = 20, temperature: float = 0.07) -> Accuracy:
    """Weighted kNN: the ``k`` training images of highest cosine vote for their class with weight exp(cosine / temperature).

    The protocol of instance discrimination (Wu et al. 2018); k = 20 and 0.07 are DINO's values. Nothing is trained or chosen.

    Args:
        train: features that vote.
        val: features that are classified.
        k: neighbours; all training images where there are fewer.
        temperature: of the weights.
    """
    keys = F.normalize(train.x, dim=1)
    scores = []
    for queries in torch.split(F.normalize(val.x, dim=1), 1024):
        cosine, nearest = (queries @ keys.T).topk(min(k, len(keys)), dim=1)
        votes = torch.zeros(len(queries), train.classes)
        scores.append(votes.scatter_add_(1, train.y[nearest], ((cosine - 1) / temperature).exp()))
    return accuracy(torch.cat(scores), val.y)
