"""A linear classifier on features that were extracted once: fast, not the paper's protocol."""

from collections.abc import Callable, Iterator
from typing import NamedTuple
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
import shards
from care.evaluate.evaluation import Accuracy, accuracy_of, check_labels
from care.evaluate.features import Features
from care.evaluate.linear_heads import (
    ROWS_AT_ONCE,
    HeadTraining,
    LinearHeads,
    held_out_rows,
)
from care.schedules import lr_at
from care.train.devices import widest_float
from care.train.rates import set_rate

FAST_LRS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SUMMED_AT_ONCE = 8192  # rows on the device while mean and deviation are computed
SMALLEST_DEVIATION = 1e-6  # of a feature that is constant


Rows = Int[Tensor, " b"]
LossOf = Callable[[LinearHeads, Tensor, Tensor, Tensor], Tensor]


class TrainedHeads(NamedTuple):
    """Linear classifiers that were trained on features.

    Attributes:
        heads: two for each learning rate.
        standardise: what they expect of features.
        held_out: numbers of the features that only the second of each two has learned from.
    """

    heads: LinearHeads
    standardise: "Standardisation"
    held_out: Int[Tensor, " n"]


class LinearRanking(NamedTuple):
    """What the classifier of the best learning rate predicts.

    Attributes:
        ranking: the first predictions of val's images, see ``rank_classes``.
        lr: that learning rate, for 256 images a step.
    """

    ranking: Int[Tensor, "n m"]
    lr: float


def linear_on_features(  # noqa: PLR0913 (a public verb)
    train: Features,
    val: Features,
    *,
    lrs: tuple[float, ...] = FAST_LRS,
    epochs: int = 80,
    batch_size: int = 256,
    norm: bool = False,
    held_out: float = 0.2,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[Accuracy, float]:
    """Accuracy of a linear layer on standardised features of val, trained on those of train.

    Protocol: that of ``linear``, with features of centre crops in the place of random crops.

    Args:
        train: features and labels to learn from.
        val: features to classify and their labels.
        lrs: learning rates to choose from, for 256 images a step.
        epochs: passes over train.
        batch_size: images a step, fewer where train is smaller.
        norm: batch norm after the layer.
        held_out: share of train that chooses the learning rate, at most 10,000 images.
        seed: of the layer's weights, the held-out part and the order.
        device: where the layer is trained.

    Returns:
        The accuracy, and the learning rate that is best on the held-out part.

    Raises:
        CareError: a label is no class, or train is too small to hold a part of it out.
    """
    training = HeadTraining(lrs, epochs, batch_size, norm, held_out, seed)
    ranking, lr = linear_ranking(train, val, training, device=device)
    return accuracy_of(ranking, val.y, train.classes), lr


def linear_ranking(
    train: Features,
    val: Features,
    training: HeadTraining,
    *,
    device: torch.device | str,
) -> LinearRanking:
    """The classes that ``linear_on_features`` predicts of val's images.

    The features stay on the CPU as they are: the batches of a step, or 1,024 rows to score, are
    sent to the device and standardised there by train's mean and deviation.

    Raises:
        CareError: a label is no class, or train is too small to hold a part of it out.
    """
    check_labels(torch.cat((train.y, val.y)), train.classes)
    where = torch.device(device)

    def loss_of(
        heads: LinearHeads, x: Float[Tensor, "b d"], rows: Rows, kept: Bool[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        return heads.loss(x, _send(train.y[rows], where), kept)

    trained = train_on_features(train.x, train.classes, training, loss_of, device=where)
    held_out = trained.held_out
    parts = trained.standardise.parts(train.x[held_out])
    scores = trained.heads.scores(parts, train.y[held_out])
    best = int(scores[0].argmax())
    rankings = trained.heads.rankings(trained.standardise.parts(val.x))
    return LinearRanking(rankings[:, 1, best], training.lrs[best])


def train_on_features(
    x: Float[Tensor, "n d"],
    classes: int,
    training: HeadTraining,
    loss_of: LossOf,
    *,
    device: torch.device,
) -> TrainedHeads:
    """Train linear classifiers of all learning rates in one pass, on standardised features.

    Args:
        x: the features to learn from, on the CPU.
        classes: how many there are.
        training: how the classifiers are trained.
        loss_of: the loss of a batch, see ``LinearHeads.loss``: of the classifiers, of standardised
            features on the device, their numbers in ``x``, and whether each is not held out.
        device: where the classifiers are trained.

    Raises:
        CareError: there are too few features to hold some out.
    """
    count, width = x.shape
    held_out = held_out_rows(count, training.held_out, training.seed)
    kept = ~torch.isin(torch.arange(count), held_out)
    batch_size = min(training.batch_size, count)
    standardise = Standardisation(x, device)
    heads = LinearHeads(width, classes, training.lrs, training.norm, training.seed)
    heads.to(device)
    optimizer = torch.optim.SGD(heads.parameters(), lr=0, momentum=0.9, fused=True)
    steps = training.epochs * (count // batch_size)
    for step in range(steps):
        set_rate(optimizer, lr_at(step, total=steps, base=batch_size / 256))
        ids = shards.step_ids(count, batch_size=batch_size, step=step, seed=training.seed).ids
        rows = torch.from_numpy(ids)
        loss = loss_of(heads, standardise(x[rows]), rows, _send(kept[rows], device))
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    return TrainedHeads(heads, standardise, held_out)


class Standardisation:
    """Standardises rows, on a device, by the mean and deviation of a set's features.

    Args:
        x: the set's features; they are read twice, and summed in float64 where there is it.
        device: where rows are sent.
    """

    def __init__(self, x: Float[Tensor, "n d"], device: torch.device) -> None:
        self.device = device
        wide = widest_float(device)
        total = torch.zeros(x.shape[1], dtype=wide, device=device)
        for part in torch.split(x, SUMMED_AT_ONCE):
            total += _send(part, device).to(wide).sum(0)
        mean = total / len(x)
        squares = torch.zeros_like(total)
        for part in torch.split(x, SUMMED_AT_ONCE):
            squares += (_send(part, device).to(wide) - mean).square_().sum(0)
        self.mean = mean.float()
        self.deviation = (squares / len(x)).sqrt().float().clamp_min(SMALLEST_DEVIATION)

    def __call__(self, rows: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Rows on the device, standardised."""
        return (_send(rows, self.device) - self.mean) / self.deviation

    def parts(self, x: Float[Tensor, "n d"]) -> Iterator[Float[Tensor, "b d"]]:
        """All rows of a set, 1,024 at a time."""
        return map(self, torch.split(x, ROWS_AT_ONCE))


def _send(rows: Tensor, device: torch.device) -> Tensor:
    """Rows on the device, to a GPU from pinned memory, which the host does not wait for."""
    if device.type != "cuda":
        return rows.to(device)
    return rows.pin_memory().to(device, non_blocking=True)
