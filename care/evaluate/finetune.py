"""Semi-supervised evaluation: the whole network fine-tuned on few labels."""

import copy
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import shards
from care.encoders import Encoder
from care.errors import CareError
from care.evaluate.features import Accuracy, accuracy, images, same_classes
from care.schedules import lr_at
from care.train.batches import loaded
from care.train.run import fastest_precision, seeded
from care.train.views import View, crop, normalize
from shards.images import SUFFIXES
from shards.order import permutation
from shards.progress import progress

RATES = ((0.02, 5.0), (0.01, 0.2))
"""Learning rates of encoder and head for 256 images a step: SwAV's for 1 % and for 10 % of ImageNet."""

Rows = NDArray[np.int64]


class Finetuned(NamedTuple):
    """Result of the semi-supervised evaluation."""

    accuracy: Accuracy
    rate: tuple[float, float]
    """The learning rates of encoder and head that were best on the held-out labels."""
    labels: int
    """Images whose label was used, the held-out ones among them."""


def stratified(labels: NDArray[np.int32], fraction: float, *, seed: int = 0) -> Rows:
    """Row numbers, ascending, of a part of every class; a smaller fraction is a subset of a larger one with the same seed.

    Args:
        labels: [n] class numbers; rows below 0 have none and are never chosen.
        fraction: above 0, at most 1; rounded for each class, but at least one image.
        seed: of the choice.

    Raises:
        CareError: a fraction out of range.
    """
    if not 0 < fraction <= 1:
        raise CareError(f"wanted a fraction of the labels above 0 and at most 1, got {fraction}")
    chosen = [np.empty(0, np.int64)]
    for label in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == label)
        chosen.append(rows[permutation(len(rows), seed=seed, stream=int(label))[: max(round(len(rows) * fraction), 1)]])
    return np.sort(np.concatenate(chosen))


def listed(data: shards.ShardSet, path: str | Path) -> tuple[Rows, list[str]]:
    """Row numbers, ascending, of the images that a text file names, one a line, and the names that are not in the set.

    A name is matched by its stem, as SimCLR's lists of ImageNet need it: ``n01440764_10026.JPEG`` is the sample whose key ends so.

    Raises:
        CareError: the file cannot be read, names no image of the set, or a stem that several images have.
    """
    try:
        names = [line.strip() for line in Path(path).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise CareError(f"cannot read the list {path}: {error}") from None
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(data.keys):
        rows.setdefault(unquote(PurePosixPath(key).name), []).append(row)  # keys escape dots
    paths = {name: PurePosixPath(name) for name in names}
    stems = {name: path.stem if path.suffix.lower() in SUFFIXES else path.name for name, path in paths.items()}
    found = {name: rows.get(path.name) or rows.get(stems[name], []) for name, path in paths.items()}
    several = [name for name, of in found.items() if len(of) > 1]
    if several:
        raise CareError(f"{path} names {several[0]}, but {data.path} has {len(found[several[0]])} images of that name")
    if not any(found.values()):
        raise CareError(f"none of the {len(names)} names in {path} is an image of {data.path}; the list is of another set")
    return np.array(sorted({row for of in found.values() for row in of}), np.int64), [name for name, of in found.items() if not of]


def finetune(
    encoder: Encoder, train: shards.ShardSet, val: shards.ShardSet, *, rows: Rows, size: int,
    rates: Sequence[tuple[float, float]] = RATES, epochs: int = 20, batch_size: int = 256, min_scale: float = 0.08,
    held_out: float = 0.2, seed: int = 0, workers: int = 0,
) -> Finetuned:  # fmt: skip
    """Train encoder and a linear head on the labels of ``rows`` only, and score the last epoch on ``val``.

    Protocol: random resized crops and flips; SGD with Nesterov momentum 0.9, no weight decay, cosine to 0 (BYOL's recipe), with
    learning rates of their own for encoder and head (SwAV's). Each of ``rates`` is trained without the held-out part of the rows;
    the best there (by top-1, then by cross-entropy) is trained again on all of them. ``val`` chooses nothing.

    Args:
        encoder: is copied, not changed; used on its device.
        train: set that ``rows`` are of.
        val: set to score, with the same classes.
        rows: row numbers of the labelled images.
        size: side of the crops, pixels.
        rates: pairs (encoder, head) to choose from, for 256 images a step.
        epochs: passes over the labelled images.
        batch_size: images a step, at most the labelled ones.
        min_scale: least share of an image's area in a training crop.
        held_out: share of the rows that chooses the rates.
        seed: of the held-out part, the order and the crops.
        workers: processes that decode.

    Raises:
        CareError: too few labels to hold a part out, images without label, other classes in ``val``, or training diverged.
    """
    same_classes(train, val)
    rows = rows[permutation(len(rows), seed=seed, stream=0)]
    asked, kept = np.split(rows, [round(len(rows) * held_out)])
    if len(asked) == 0 or len(kept) < 2 or (train.labels[rows] < 0).any():
        raise CareError(f"cannot hold {held_out:.0%} of {len(rows)} labelled images of {train.path} out; use more, all with a label")
    examples = _Examples(train, size, View(scale=(min_scale, 1.0), jitter_p=0, blur_p=0, gray_p=0), seed)
    lengths = {len(part): epochs * (len(part) // min(batch_size, len(part))) for part in (kept, rows)}
    total = sum(steps * min(batch_size, n) * (len(rates) if n == len(kept) else 1) for n, steps in lengths.items())
    with progress(f"fine-tuning on {len(rows)} labels", total) as advance:

        def fit(part: Rows, rate: tuple[float, float]) -> _Classifier:
            model = _Classifier(encoder, len(train.classes)).train()
            groups = [{"params": model.encoder.parameters()}, {"params": model.head.parameters()}]
            optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True, fused=True)
            batch, steps = min(batch_size, len(part)), lengths[len(part)]
            order = (shards.step_ids(len(part), batch_size=batch, step=step, seed=seed) for step in range(steps))
            sampler = ([(epoch, int(row)) for row in part[ids]] for epoch, ids in order)
            loader = DataLoader(examples, batch_sampler=sampler, num_workers=workers, generator=torch.Generator())
            for step, (pixels, labels) in enumerate(loaded(loader)):
                for group, lr in zip(optimizer.param_groups, rate, strict=True):
                    group["lr"] = lr_at(step, total=steps, base=lr * batch / 256)
                with seeded(seed, step, model.head.weight.device):
                    loss = F.cross_entropy(model(normalize(pixels.float() / 255)), labels.to(model.head.weight.device))
                torch.autograd.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
                advance(batch, f"loss {float(loss.detach()):.3f}")
            return model

        scores = []
        for rate in rates:
            logits, labels = _scores(fit(kept, rate), train, size, workers, asked)
            scores.append(
                (accuracy(logits, labels).top1, -float(F.cross_entropy(logits, labels))) if logits.isfinite().all() else (-1.0, 0.0)
            )
        if max(scores)[0] < 0:
            raise CareError(f"fine-tuning diverged at all of the learning rates {list(rates)}; try lower ones")
        best = rates[scores.index(max(scores))]
        logits, labels = _scores(fit(rows, best), val, size, workers)
    if not logits.isfinite().all():
        raise CareError(f"fine-tuning on all labels diverged at the learning rates {best}; try lower ones")
    return Finetuned(accuracy(logits, labels), best, len(rows))


class _Classifier(nn.Module):
    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        where = next(encoder.parameters()).device
        self.encoder = copy.deepcopy(encoder)
        with torch.random.fork_rng(devices=[]):  # the layer draws numbers, for nothing
            self.head = nn.Linear(encoder.features, classes)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        self.head.to(where)
        self.autocast = torch.autocast(where.type, torch.bfloat16, enabled=fastest_precision(where) == "bf16")

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        with self.autocast:
            logits: Tensor = self.head(self.encoder(x.to(self.head.weight.device).contiguous(memory_format=torch.channels_last)).features)
        return logits.float()


class _Examples(Dataset[tuple[UInt8[np.ndarray, "3 h w"], int]]):
    """Crops of (epoch, row), and their labels."""

    def __init__(self, data: shards.ShardSet, size: int, view: View, seed: int) -> None:
        self.data, self.size, self.view, self.seed = data, size, view, seed

    def __getitem__(self, at: tuple[int, int]) -> tuple[UInt8[np.ndarray, "3 h w"], int]:
        epoch, row = at
        pixels = crop(np.array(self.data.image(row)), self.view.draw(self.seed, epoch, row, 0), self.size)
        return pixels.copy(), int(self.data.labels[row])  # Pillow's memory is read only


@torch.no_grad()
def _scores(model: _Classifier, data: shards.ShardSet, size: int, workers: int, rows: Rows | None = None) -> tuple[Tensor, Tensor]:
    """Logits [n, classes] and labels [n] of the centre crops of a set, or of some of its rows."""
    model.eval()
    logits = [model(batch).cpu() for batch in images(data, size=size, workers=workers, rows=rows)]
    labels = data.labels if rows is None else data.labels[rows]
    return torch.cat(logits), torch.from_numpy(labels.astype(np.int64))
