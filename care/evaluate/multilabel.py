"""A linear layer for images of several classes each, on features that were extracted once."""

from functools import partial
from pathlib import Path
from typing import NamedTuple
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from care.encoded import evaluating
from care.encoders import Encoder
from care.errors import CareError
from care.evaluate.evaluation import Evaluation
from care.evaluate.features import device_of, pooled_features
from care.evaluate.linear_features import FAST_LRS, TrainedHeads, train_on_features
from care.evaluate.linear_heads import HeadTraining, LinearHeads
from care.evaluate.predictions import as_csv, as_percent
from care.evaluate.resampling import DETECTION_DRAWS, resamples, rounded
from care.train.precision import Precision
from shards.bounds import Fraction, NonNegativeInt, PositiveInt
from shards.image_size import ImageSize, image_size
from shards.multilabels import PRESENT, UNDECIDED, MultiLabelSet, Targets
from shards.pixel_report import differences
from shards.progress import say, warn

# a file of the cache has the features of so many images
IMAGES_OF_A_PART = 4096


class ClassScores(NamedTuple):
    """The scores of every picture for every class.

    Attributes:
        scores: the surer, the higher.
        targets: ``PRESENT``, ``ABSENT`` or ``UNDECIDED``.
        classes: their names.
        keys: names of the pictures.
    """

    scores: NDArray[np.float32]
    targets: Targets
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
    train: MultiLabelSet,
    val: MultiLabelSet,
    *,
    size: ImageSize | None = None,
    lrs: tuple[float, ...] = FAST_LRS,
    epochs: PositiveInt = 80,
    batch_size: PositiveInt = 256,
    held_out: Fraction = 0.2,
    seed: NonNegativeInt = 0,
    precision: Precision = "fp32",
    workers: NonNegativeInt | None = None,
    cache: str | Path | None = None,
) -> Evaluation:
    """A linear layer that says of every class whether an image shows it, on frozen features.

    Protocol: a logistic output for each class on standardised features of centre crops; SGD with
    momentum 0.9, no weight decay, cosine to 0. The learning rate is that of the highest mAP on the
    held-out part of train; what is scored on val has learned from all of train. Where it is not
    decided whether an image shows a class (all its objects there are difficult ones of VOC, or the
    cell of a table is blank), nothing is learned of it and nothing scored.

    Args:
        encoder: used on the device it is on, in eval mode; not changed.
        train: images to learn from and their classes.
        val: images to score, of the same classes.
        size: of the crops, pixels, or height and width such as 96x192; by default that of the
            encoder's training.
        lrs: learning rates to choose from, for 256 images a step.
        epochs: passes over train.
        batch_size: images a step, fewer where train is smaller.
        held_out: share of train that chooses the learning rate, at most 10,000 images.
        seed: of the layer's weights, the held-out part and the order.
        precision: of the encoder's arithmetic.
        workers: processes that decode images, by default what is best here.
        cache: see ``extract``.

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
    for data in (train, val):
        for note in data.notes:
            say(f"{data.path}: {note}")
        if not (data.targets == PRESENT).any():
            raise CareError(f"no image of {data.path} shows a class that counts")
    for difference in differences(train.images.pixels, val.images.pixels):
        warn(difference)
    size = image_size(size or encoder.size)
    x_of = partial(_features, encoder, size=size, precision=precision, workers=workers, cache=cache)
    x = x_of(train)
    targets = torch.from_numpy(train.targets)
    training = HeadTraining(
        lrs, epochs, min(batch_size, len(x)), norm=False, held_out=held_out, seed=seed
    )
    trained = train_on_features(
        x, len(train.classes), training, partial(_loss, targets=targets), device=device_of(encoder)
    )
    best = _best_rate(trained, x, train)
    scores = _logits(trained, x_of(val))[:, 1, best].numpy()
    return _record(
        ClassScores(scores, val.targets, val.classes, val.keys),
        lr=lrs[best],
        protocol="a logistic output for each class on standardised frozen features of centre crops "
        f"of {size} px, {epochs} epochs of SGD at batch {training.batch_size}, "
        "learning rate chosen on held-out images of train; AP of all recalls",
    )


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
    data: MultiLabelSet,
    *,
    size: ImageSize,
    precision: Precision,
    workers: int | None,
    cache: str | Path | None,
) -> Float[Tensor, "n d"]:
    """Features of the centre crops of all images, cached in parts."""
    count = len(data.keys)
    firsts = range(0, count, IMAGES_OF_A_PART)
    parts = {
        number: range(first, min(first + IMAGES_OF_A_PART, count))
        for number, first in enumerate(firsts)
    }
    return pooled_features(
        encoder, data, parts, size=size, precision=precision, workers=workers, cache=cache
    )


def _loss(
    heads: LinearHeads,
    x: Float[Tensor, "b d"],
    rows: Int[Tensor, " b"],
    kept: Bool[Tensor, " b"],
    *,
    targets: Int[Tensor, "n classes"],
) -> Float[Tensor, ""]:
    """Sum of the classifiers' mean losses, each times its learning rate (see ``LinearHeads``).

    Args:
        heads: the classifiers.
        x: features of a batch.
        rows: their numbers.
        kept: whether each is not held out.
        targets: what all images show.
    """
    logits = heads(x)
    of_batch = targets[rows].to(logits.device)
    wanted = (of_batch == PRESENT).to(logits)[:, None, None].expand_as(logits)
    losses = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    decided = (of_batch != UNDECIDED).to(logits)
    # the first of the two sees what is not held out, the second all
    seen = torch.stack((decided * kept[:, None], decided), 1)
    means = (losses * seen[:, :, None]).sum((0, 3)) / seen.sum((0, 2)).clamp_min(1)[:, None]
    return (means * heads.rates.to(logits)).sum()


def _best_rate(trained: TrainedHeads, x: Float[Tensor, "n d"], train: MultiLabelSet) -> int:
    """The number of the learning rate whose classifier has the highest held-out mAP."""
    logits = _logits(trained, x[trained.held_out])[:, 0]
    targets = train.targets[trained.held_out.numpy()]
    means = []
    for of_rate in logits.unbind(1):
        scores = ClassScores(of_rate.numpy(), targets, train.classes, ())
        means.append(_mean(scores.precisions()))
    return means.index(max(means))


@torch.no_grad()
def _logits(trained: TrainedHeads, x: Float[Tensor, "n d"]) -> Float[Tensor, "n 2 m classes"]:
    """Logits of all classifiers, on the CPU."""
    with evaluating(trained.heads):
        return torch.cat([trained.heads(part).cpu() for part in trained.standardise.parts(x)])


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
