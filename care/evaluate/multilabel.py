"""A linear layer for images of several classes each, on features that were extracted once."""

from typing import NamedTuple
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
import shards
from care.encoded import evaluating
from care.encoders import Encoder
from care.errors import CareError
from care.evaluate.evaluation import Evaluation
from care.evaluate.features import device_of, frozen_features
from care.evaluate.images import centre_crops
from care.evaluate.linear_features import FAST_LRS, Standardisation
from care.evaluate.linear_heads import LinearHeads, held_out_rows
from care.evaluate.predictions import as_csv, as_percent
from care.evaluate.resampling import DETECTION_DRAWS, resamples, rounded
from care.schedules import lr_at
from care.train.loading import worker_count
from care.train.precision import Precision
from care.train.sgd import set_rate
from shards.bounds import Fraction, NonNegativeInt, PixelSide, PositiveInt
from shards.boxes import BoxSet
from shards.progress import progress

PRESENT = 1
ABSENT = 0
UNDECIDED = -1  # all objects of the class are difficult ones: neither learned nor scored

IMAGES_AT_ONCE = 256


class LabelledFeatures(NamedTuple):
    """Features of the pictures of a set, and which classes these show.

    Attributes:
        x: pooled features, float32, on the CPU.
        y: ``PRESENT``, ``ABSENT`` or ``UNDECIDED`` of every class.
    """

    x: Float[Tensor, "n d"]
    y: Int[Tensor, "n classes"]


class ClassScores(NamedTuple):
    """The scores of every picture for every class.

    Attributes:
        scores: the surer, the higher.
        targets: ``PRESENT``, ``ABSENT`` or ``UNDECIDED``.
        classes: their names.
        keys: names of the pictures.
    """

    scores: NDArray[np.float32]
    targets: NDArray[np.int64]
    classes: tuple[str, ...]
    keys: tuple[str, ...]

    def __eq__(self, other: object) -> bool:
        """Whether all of them are equal; arrays alone would be compared one by one."""
        return isinstance(other, ClassScores) and self.files() == other.files()

    def __hash__(self) -> int:
        return hash(tuple(self.files().items()))

    def precisions(self, weights: NDArray[np.int64] | None = None) -> dict[str, float]:
        """Average precision, as a share of 1, of the classes that a picture shows.

        Args:
            weights: [n], how often each picture is there; by default once.
        """
        counts = np.ones(len(self.scores), np.int64) if weights is None else weights
        by_class = dict[str, float]()
        for number, name in enumerate(self.classes):
            decided = self.targets[:, number] != UNDECIDED
            present = self.targets[decided, number] == PRESENT
            if counts[decided] @ present > 0:
                scores = self.scores[decided, number]
                by_class[name] = average_precision_of(scores, present, counts[decided])
        return by_class

    def files(self) -> dict[str, bytes]:
        """What an evaluation leaves of them: a table with a column for each class."""
        rows = ([key, *map(float, row)] for key, row in zip(self.keys, self.scores, strict=True))
        return {"scores.csv": as_csv(["key", *self.classes], rows)}


def multilabel(  # noqa: PLR0913 (a public verb)
    encoder: Encoder,
    train: BoxSet,
    val: BoxSet,
    *,
    size: PixelSide | None = None,
    lrs: tuple[float, ...] = FAST_LRS,
    epochs: PositiveInt = 80,
    batch_size: PositiveInt = 256,
    held_out: Fraction = 0.2,
    seed: NonNegativeInt = 0,
    precision: Precision = "fp32",
    workers: NonNegativeInt | None = None,
) -> Evaluation:
    """A linear layer that says of every class whether an image shows it, on frozen features.

    Protocol: a logistic output for each class on standardised features of centre crops; SGD with
    momentum 0.9, no weight decay, cosine to 0. The learning rate is that of the highest mAP on the
    held-out part of train; what is scored on val has learned from all of train. A class whose
    objects on an image are all difficult (VOC) is neither learned nor scored there.

    Args:
        encoder: used on the device it is on, in eval mode; not changed.
        train: annotated images to learn from.
        val: annotated images to score, of the same classes.
        size: side of the crops, pixels; by default that of the encoder's training.
        lrs: learning rates to choose from, for 256 images a step.
        epochs: passes over train.
        batch_size: images a step, fewer where train is smaller.
        held_out: share of train that chooses the learning rate, at most 10,000 images.
        seed: of the layer's weights, the held-out part and the order.
        precision: of the encoder's arithmetic.
        workers: processes that decode images, by default what is best here.

    Returns:
        ``map``, the mean over classes of the average precision of all recalls, per cent; that of
        each class, and the scores.

    Raises:
        CareError: the sets name different classes, no image of one shows any, or train is too small
            to hold a part of it out.

    Source: Goyal et al. 2019, "Scaling and Benchmarking Self-Supervised Visual Representation
    Learning", Sec. 6.1, whose classifiers are SVMs.
    """
    if train.classes != val.classes:
        raise CareError(
            f"{train.path} and {val.path} name different classes; read the second with the classes "
            "of the first"
        )
    side = size or encoder.size
    parts = []
    for data in (train, val):
        targets = presence(data)
        if not (targets == PRESENT).any():
            raise CareError(f"no image of {data.path} shows an object that counts")
        parts.append(_features(encoder, data, targets, side, precision, workers))
    learned, scored = parts
    held_rows = held_out_rows(len(learned.x), held_out, seed)
    standardise = Standardisation(learned.x, device_of(encoder))
    heads = LinearHeads(learned.x.shape[1], len(train.classes), lrs, norm=False, seed=seed)
    heads.to(device_of(encoder))
    _train(heads, learned, held_rows, standardise, epochs=epochs, batch_size=batch_size, seed=seed)
    chooses = _logits(heads, standardise, learned.x[held_rows])[:, 0]
    keys = tuple(picture.path.name for picture in val.pictures)
    held_targets = learned.y[held_rows].numpy()
    means = []
    for number in range(len(lrs)):
        judged = ClassScores(chooses[:, number].numpy(), held_targets, train.classes, ())
        means.append(_mean(judged.precisions()))
    best = means.index(max(means))
    scores = _logits(heads, standardise, scored.x)[:, 1, best].numpy()
    return _record(
        ClassScores(scores, scored.y.numpy(), val.classes, keys),
        lr=lrs[best],
        protocol="a logistic output for each class on standardised frozen features of centre crops "
        f"of {side} px, {epochs} epochs of SGD at batch {min(batch_size, len(learned.x))}, "
        "learning rate chosen on held-out images of train; AP of all recalls",
    )


def presence(data: BoxSet) -> Int[Tensor, "n classes"]:
    """Which classes the pictures of a set show.

    Returns:
        ``PRESENT`` where an object is not difficult, be it a crowd; ``UNDECIDED`` where all of the
        class are; else ``ABSENT``.
    """
    targets = torch.full((len(data.pictures), len(data.classes)), ABSENT)
    for row, picture in enumerate(data.pictures):
        targets[row, torch.from_numpy(picture.labels[picture.difficult])] = UNDECIDED
        targets[row, torch.from_numpy(picture.labels[~picture.difficult])] = PRESENT
    return targets


def average_precision_of(
    scores: NDArray[np.float32], present: NDArray[np.bool_], weights: NDArray[np.int64]
) -> float:
    """Area under the steps of precision over recall, as a share of 1.

    Args:
        scores: [n]; equal ones count at once.
        present: [n], one of those with a weight at least.
        weights: [n], how often each is there.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    hits = np.cumsum(weights[order] * present[order])[ends]
    counts = np.cumsum(weights[order])[ends]
    gains = np.diff(hits, prepend=0)
    return float((gains * hits / np.maximum(counts, 1)).sum() / hits[-1])


def _features(
    encoder: Encoder,
    data: BoxSet,
    targets: Int[Tensor, "n classes"],
    size: int,
    precision: Precision,
    workers: int | None,
) -> LabelledFeatures:
    """Features of the centre crops of all pictures."""
    count = len(data.pictures)
    firsts = range(0, count, IMAGES_AT_ONCE)
    batches = [[*range(first, min(first + IMAGES_AT_ONCE, count))] for first in firsts]
    workers = worker_count(
        workers,
        device_of(encoder),
        batches=len(batches),
        batch_bytes=IMAGES_AT_ONCE * 3 * size**2,
    )
    parts = []
    with progress(f"features of {data.path}", count) as advance, evaluating(encoder):
        for images in centre_crops(data, batches, size=size, workers=workers):
            parts.append(frozen_features(encoder, images, precision).cpu())
            advance(len(images), "")
    return LabelledFeatures(torch.cat(parts), targets)


def _train(
    heads: LinearHeads,
    learned: LabelledFeatures,
    held_rows: Tensor,
    standardise: Standardisation,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
) -> None:
    """Train the outputs of all learning rates in one pass."""
    count = len(learned.x)
    kept = ~torch.isin(torch.arange(count), held_rows)
    batch_size = min(batch_size, count)
    optimizer = torch.optim.SGD(heads.parameters(), lr=0, momentum=0.9)
    steps = epochs * (count // batch_size)
    for step in range(steps):
        set_rate(optimizer, lr_at(step, total=steps, base=batch_size / 256))
        ids = shards.step_ids(count, batch_size=batch_size, step=step, seed=seed).ids
        rows = torch.from_numpy(ids)
        logits = heads(standardise(learned.x[rows]))
        targets = learned.y[rows].to(logits.device)
        loss = _loss(logits, targets, kept[rows].to(logits.device), heads.rates.to(logits))
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()


def _loss(
    logits: Float[Tensor, "b 2 m classes"],
    targets: Int[Tensor, "b classes"],
    kept: Tensor,
    rates: Float[Tensor, " m"],
) -> Float[Tensor, ""]:
    """Sum of the classifiers' mean losses, each times its learning rate (see ``LinearHeads``)."""
    wanted = (targets == PRESENT).to(logits)[:, None, None].expand_as(logits)
    losses = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    decided = (targets != UNDECIDED).to(logits)
    # the first of the two sees what is not held out, the second all
    seen = torch.stack((decided * kept[:, None], decided), 1)
    means = (losses * seen[:, :, None]).sum((0, 3)) / seen.sum((0, 2)).clamp_min(1)[:, None]
    return (means * rates).sum()


@torch.no_grad()
def _logits(
    heads: LinearHeads, standardise: Standardisation, x: Float[Tensor, "n d"]
) -> Float[Tensor, "n 2 m classes"]:
    """Logits of all classifiers, on the CPU."""
    with evaluating(heads):
        return torch.cat([heads(part).cpu() for part in standardise.parts(x)])


def _mean(precisions: dict[str, float]) -> float:
    """The mean over classes, 0 of none."""
    return sum(precisions.values()) / max(len(precisions), 1)


def _record(scores: ClassScores, *, lr: float, protocol: str) -> Evaluation:
    """The record of the scores of val."""
    precisions = scores.precisions()
    draws = resamples(len(scores.scores), DETECTION_DRAWS)
    return Evaluation(
        task="several labels",
        protocol=protocol,
        measures={"map": as_percent(_mean(precisions))},
        chosen={"lrs": (lr,)},
        resampled=rounded([100 * _mean(scores.precisions(weights)) for weights in draws]),
        by_class={name: as_percent(share) for name, share in precisions.items()},
        outcomes=scores,
    )
