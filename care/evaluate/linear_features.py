"""A linear classifier on features that were extracted once: minutes, but not the paper's protocol."""

from collections.abc import Iterator
import torch
from jaxtyping import Bool, Float
from torch import Tensor
import shards
from care import lr_at
from care.evaluate.evaluation import Accuracy, all_known
from care.evaluate.features import Features
from care.evaluate.linear_heads import LinearHeads, held_out_rows, percent

FAST_LRS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def linear_on_features(
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
    """Accuracy of ``linear_hits``, whose arguments these are, and the learning rate."""
    right, lr = linear_hits(
        train,
        val,
        lrs=lrs,
        epochs=epochs,
        batch_size=batch_size,
        norm=norm,
        held_out=held_out,
        seed=seed,
        device=device,
    )
    return Accuracy(*percent(right).tolist()), lr


def linear_hits(
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
) -> tuple[Bool[Tensor, "n 2"], float]:
    """Which of val's images ``linear``'s layer classifies rightly from standardised features.

    The features stay on the CPU as they are: the batches of a step, or 1,024 rows to score, are
    sent to the device and standardised there by train's mean and deviation.

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
        Whether an image's class is the first, and among the five first predictions [n, 2], and
        the learning rate that is best on the held-out part.

    Raises:
        CareError: a label is no class, or train is too small to hold a part of it out.
    """
    all_known(torch.cat((train.y, val.y)), train.classes)
    where, count = torch.device(device), len(train.x)
    held, batch = held_out_rows(count, held_out, seed), min(batch_size, count)
    kept = ~torch.isin(torch.arange(count), held)
    standard = _Standard(train.x, where)
    heads = LinearHeads(train.x.shape[1], train.classes, lrs, norm, seed).to(where)
    optimizer = torch.optim.SGD(heads.parameters(), lr=0, momentum=0.9, fused=True)
    steps = epochs * (count // batch)
    for step in range(steps):
        ids = shards.step_ids(count, batch_size=batch, step=step, seed=seed).ids
        rows = torch.from_numpy(ids)
        optimizer.param_groups[0]["lr"] = batch / 256 * lr_at(step, total=steps, base=1)
        labels, counted = (_send(part[rows], where) for part in (train.y, kept))
        torch.autograd.backward(heads.loss(standard(train.x[rows]), labels, counted))
        optimizer.step()
        optimizer.zero_grad()
    held_out_scores = heads.scores(standard.parts(train.x[held]), train.y[held])
    best = int(held_out_scores[0, 0].argmax())
    return heads.hits(standard.parts(val.x), val.y)[:, :, 1, best], lrs[best]


class _Standard:
    """Rows sent to a device and standardised there by the mean and deviation of a set's features.

    Args:
        x: the set's features [n, d]; they are read twice, and summed in float64.
        device: where rows are sent.
    """

    def __init__(self, x: Float[Tensor, "n d"], device: torch.device) -> None:
        self.device = device
        total = torch.zeros(x.shape[1], dtype=torch.float64, device=device)
        for part in torch.split(x, 8192):
            total += _send(part, device).double().sum(0)
        mean = total / len(x)
        squares = torch.zeros_like(total)
        for part in torch.split(x, 8192):
            squares += (_send(part, device).double() - mean).square_().sum(0)
        self.mean = mean.float()
        self.deviation = (squares / len(x)).sqrt().float().clamp_min(1e-6)

    def __call__(self, rows: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        return (_send(rows, self.device) - self.mean) / self.deviation

    def parts(self, x: Float[Tensor, "n d"]) -> Iterator[Float[Tensor, "b d"]]:
        """All rows of a set, 1,024 at a time."""
        return map(self, torch.split(x, 1024))


def _send(rows: Tensor, device: torch.device) -> Tensor:
    """Rows on the device; a GPU takes them from pinned memory, which the host does not wait for."""
    return rows.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else rows
