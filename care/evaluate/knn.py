"""Weighted nearest neighbours on frozen features: nothing is trained."""

from pathlib import Path
from typing import Annotated
import torch
from jaxtyping import Int
from torch import Tensor
import shards
from care.encoders import Encoder
from care.evaluate.evaluation import (
    Accuracy,
    Evaluation,
    accuracy_of,
    check_labels,
    classification,
    comparable,
)
from care.evaluate.features import Features, device_of, extract
from care.evaluate.neighbours import nearest
from care.evaluate.predictions import TOP, predictions_of, rank_classes
from care.train.precision import Precision
from shards.bounds import NonNegativeInt, PositiveInt, Range
from shards.image_size import ImageSize, image_size
from shards.progress import warn

VOTES_AT_ONCE = 1024  # images, each with a float32 for every class


def knn(  # noqa: PLR0913 (a public verb)
    encoder: Encoder,
    train: shards.ShardSet,
    val: shards.ShardSet,
    *,
    size: ImageSize | None = None,
    k: PositiveInt = 20,
    temperature: Annotated[float, Range(1e-3)] = 0.07,
    precision: Precision = "fp32",
    workers: NonNegativeInt | None = None,
    cache: str | Path | None = None,
) -> Evaluation:
    """Weighted nearest neighbours on frozen features of centre crops.

    Protocol: the nearest training images of an image of val, by the cosine of their features, vote
    for their classes with weight exp(cosine / temperature). Nothing is trained or chosen.

    Args:
        encoder: used on the device it is on.
        train: set whose labels vote.
        val: set to classify.
        size: of the crops, pixels, or height and width such as 96x192; by default that of the
            encoder's training.
        k: neighbours; DINO's protocol has 20, instance discrimination's 200. All images of train
            vote where there are fewer, which is said.
        temperature: of the votes' weights; DINO's is 0.07, instance discrimination's 0.1.
        precision: of the encoder's arithmetic.
        workers: processes that decode images, by default what is best here.
        cache: see ``extract``.

    Returns:
        ``top1`` of val, per cent, ``top5`` where there are more than five classes, ``balanced``
        where these differ in number; accuracy by class, and the predictions.

    Raises:
        CareError: images of val have classes that train does not have, or none has any.

    Source: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination", Sec. 3.4; Caron et al. 2021, "Emerging Properties in Self-Supervised Vision
    Transformers" (DINO), for k and the temperature.
    """
    sets = comparable(train, val)
    size = image_size(size or encoder.size)
    train_features, val_features = (
        extract(encoder, data, size=size, workers=workers, precision=precision, cache=cache)
        for data in (sets.train, sets.val)
    )
    ranking = knn_ranking(
        train_features, val_features, k=k, temperature=temperature, device=device_of(encoder)
    )
    return classification(
        predictions_of(sets.val, ranking),
        task="kNN",
        protocol="weighted nearest neighbours on frozen features "
        f"({_voters(k, len(sets.train))}, temperature {temperature:g}), centre crops of {size} px; "
        f"nothing is trained or chosen{sets.remark}",
    )


def _voters(k: int, images: int) -> str:
    """How many neighbours vote, in words; that there are fewer than wanted is also printed."""
    if k <= images:
        return f"k {k}"
    warn(f"k {k:,} is more than train has: all its {images:,} images vote")
    return f"k {images}, all of train, where {k} were wanted"


def weighted_knn(
    train: Features,
    val: Features,
    *,
    k: int = 20,
    temperature: float = 0.07,
    device: torch.device | str = "cpu",
) -> Accuracy:
    """Accuracy of ``knn_ranking``, whose arguments these are."""
    ranking = knn_ranking(train, val, k=k, temperature=temperature, device=device)
    return accuracy_of(ranking, val.y, train.classes)


def knn_ranking(
    train: Features,
    val: Features,
    *,
    k: int = 20,
    temperature: float = 0.07,
    device: torch.device | str = "cpu",
) -> Int[Tensor, "n m"]:
    """Classes of val's images by a vote of their nearest training images.

    The ``k`` training images (or all) of highest cosine vote with weight exp(cosine / temperature)
    for their class (Wu et al. 2018).

    Args:
        train: features and labels that vote; on the CPU, as val's are.
        val: features to classify and their labels.
        k: neighbours.
        temperature: of the votes' weights.
        device: where the cosines are computed, in the memory that ``choose_blocks`` allows.

    Returns:
        ``rank_classes`` of the votes.

    Raises:
        CareError: a label is no class of train.
    """
    check_labels(val.y, train.classes)
    check_labels(train.y, train.classes)
    neighbours = nearest(val.x, train.x, k, device=device)
    ranking = [torch.empty(0, min(TOP, train.classes), dtype=torch.int64)]
    # on the CPU, where the votes of a class are always added in the same order
    for rows in torch.split(torch.arange(len(val.x)), VOTES_AT_ONCE):
        # relative to a cosine of 1, or far neighbours would all have weight 0
        weights = ((neighbours.cosines[rows] - 1) / temperature).exp()
        votes = torch.zeros(len(rows), train.classes)
        votes.scatter_add_(1, train.y[neighbours.rows[rows]], weights)
        ranking.append(rank_classes(votes))
    return torch.cat(ranking)
