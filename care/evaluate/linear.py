"""A linear classifier on a frozen encoder."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
import shards
from care import CareError, lr_at
from care.encoders import Encoder, evaluating
from care.evaluate.features import (
    Accuracy,
    Evaluation,
    Features,
    all_known,
    centres,
    crops,
    extract,
    frozen,
    same_classes,
)
from care.evaluate.resampling import resampled_mean
from care.train.loading import worker_count
from care.train.precision import Precision
from care.train.run import Run
from care.train.weights import digest_of
from shards.reader import permutation
from shards.terminal import Count, Natural, Positive, Share, Side

LRS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
FAST_LRS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SCORED = (
    1,
    2,
    5,
    7,
)  # epochs after which the released code scores, beside every tenth and the last


def linear(
    encoder: Encoder,
    train: shards.ShardSet,
    val: shards.ShardSet,
    run: str | Path,
    *,
    size: Side | None = None,
    fast: bool = False,
    lrs: tuple[float, ...] | None = None,
    epochs: Count = 80,
    batch_size: Count = 256,
    norm: bool = False,
    min_scale: Positive = 0.08,
    held_out: Share = 0.2,
    seed: Natural = 0,
    precision: Precision = "fp32",
    workers: Natural | None = None,
    checkpoint_every: Count = 500,
    cache: str | Path | None = None,
) -> Evaluation:
    """A linear layer on a frozen encoder, trained on random crops and flips by the paper's recipe (Sec. 4.1).

    SGD with momentum 0.9, no weight decay, cosine to 0. All learning rates are trained in one pass, each twice: without the held-out
    part of train, which chooses the rate, and on all of train, which is scored on val. The last epoch is the headline, the best one
    (as the released code reports) stands beside it; val chooses neither. Interrupted, the same call continues.

    Args:
        encoder: used on the device it is on, in eval mode; not changed by a bit.
        train: set to learn from; images without label, or too few to hold some out, are a ``CareError``.
        val: set to classify; other classes are a ``CareError``.
        run: directory or URL of the checkpoints and ``losses.jsonl``; other settings are a ``CareError``, SIGINT and SIGTERM ``Stopped``.
        size: side of the crops, pixels; by default that of the encoder's training.
        fast: train on features of centre crops instead, standardised and extracted once: minutes, but another protocol.
        lrs: to choose from, for 256 images a step (the paper's is 0.2); by default ten of 0.05 … 30, or with fast seven of 0.01 … 10.
        epochs: passes over train.
        batch_size: images a step, fewer where train is smaller.
        norm: batch norm after the layer, as the released code has it.
        min_scale: least share of an image's area in a training crop.
        held_out: share of train that chooses the learning rate, at most 10,000 images (BYOL's number).
        seed: of the layer's weights, the held-out part, the order and the crops.
        precision: of the encoder's arithmetic; the layer's is float32.
        workers: processes that decode images, by default what is best here.
        checkpoint_every: steps between checkpoints.
        cache: see ``extract``.
    """
    same_classes(train, val)
    size, before = size or encoder.size, digest_of(encoder)
    if bool((train.labels < 0).any()):
        raise CareError(
            f"{train.path} has images without a class; the linear evaluation needs a set built from class folders"
        )
    held, batch, where = (
        _held(len(train), held_out, seed),
        min(batch_size, len(train)),
        next(encoder.parameters()).device,
    )
    recipe = (
        f"{epochs} epochs of SGD at batch {batch}, learning rate chosen on held-out images of train"
    )
    asked = extract(encoder, val, size=size, workers=workers, precision=precision, cache=cache)
    if fast:
        known = extract(
            encoder, train, size=size, workers=workers, precision=precision, cache=cache
        )
        right, lr = linear_hits(
            known,
            asked,
            lrs=lrs or FAST_LRS,
            epochs=epochs,
            batch_size=batch_size,
            norm=norm,
            held_out=held_out,
            seed=seed,
            device=where,
        )
        protocol = f"one linear layer on standardised frozen features of centre crops of {size} px, {recipe}; not the paper's protocol"
        return Evaluation(
            "linear on cached features",
            protocol,
            Accuracy(*_percent(right).tolist())._asdict(),
            {"lrs": (lr,)},
            resampled_mean(right[:, 0]),
        )
    lrs, per_epoch = lrs or LRS, len(train) // batch
    steps, kept = epochs * per_epoch, ~torch.isin(torch.arange(len(train)), held)
    heads = _Heads(encoder.features, len(train.classes), lrs, norm, seed).to(where)
    optimizer = torch.optim.SGD(
        [{"params": heads.parameters(), "initial_lr": batch / 256}], lr=0, momentum=0.9
    )
    settings = {
        "encoder": before,
        "data": train.digest,
        "val": val.digest,
        "size": size,
        "lrs": lrs,
        "steps": steps,
        "norm": norm,
        "batch_size": batch,
        "min_scale": min_scale,
        "held_out": len(held),
        "seed": seed,
        "precision": precision,
    }
    losses = lambda x, y, rows: {"heads": heads.loss(frozen(encoder, x, precision), y, kept[rows])}  # noqa: E731

    def scores(step: int, _: dict[str, float]) -> dict[str, float]:
        epoch, rest = divmod(step + 1, per_epoch)
        scored = rest == 0 and (epoch in SCORED or epoch % 10 == 0 or epoch == epochs)
        if not scored:
            return {}
        tops = heads.scores(torch.split(asked.x, 1024), asked.y)[0, 1].tolist()
        return {f"val {lr:g}": top for lr, top in zip(lrs, tops, strict=True)}

    state = Run(
        run,
        heads,
        optimizer,
        settings,
        title="linear",
        precision="fp32",
        checkpoint_every=checkpoint_every,
        workers=workers,
    )
    with evaluating(encoder), state:
        stream = crops(state, train, np.arange(len(train)), state.workers)
        state.steps(stream, losses, lambda step: lr_at(step, total=steps, base=1), "", then=scores)
        batches = [part.tolist() for part in torch.split(held, batch_size)]
        batch_bytes = batch_size * 3 * size**2
        workers = worker_count(workers, where, batches=len(batches), batch_bytes=batch_bytes)
        x = torch.cat(
            [
                frozen(encoder, images, precision)
                for images in centres(train, batches, size=size, workers=workers)
            ]
        )
    if digest_of(encoder) != before:
        raise CareError(
            "the encoder has changed under a linear evaluation, which must not be: its result would be of another encoder"
        )
    held_out_labels = torch.from_numpy(train.labels[held])
    best = int(heads.scores(torch.split(x, 1024), held_out_labels)[0, 0].argmax())
    right = heads.hits(torch.split(asked.x, 1024), asked.y)[:, :, 1, best]
    top1, top5 = _percent(right).tolist()
    rows = [json.loads(line) for line in (state.path / "losses.jsonl").read_text().splitlines()]
    measures = {
        "top1": top1,
        "top5": top5,
        "best1": max(row.get(f"val {lrs[best]:g}", 0.0) for row in rows),
    }
    protocol = f"one linear layer{' and batch norm' * norm} on the frozen encoder, random crops of {size} px and flips, {recipe}"
    chosen = {"lrs": (lrs[best],)}
    return Evaluation("linear", protocol, measures, chosen, resampled_mean(right[:, 0]))


class _Heads(nn.Module):
    """Two linear classifiers for each learning rate by side in one layer: of the images that choose no rate, and of all."""

    def __init__(
        self, features: int, classes: int, lrs: Sequence[float], norm: bool, seed: int
    ) -> None:
        super().__init__()
        self.shape = (2, len(lrs), classes)
        self.linear = nn.Linear(features, 2 * len(lrs) * classes, device="meta").to_empty(
            device="cpu"
        )  # draws nothing
        weight = (
            torch.randn(classes, features, generator=torch.Generator().manual_seed(seed)) * 0.01
        )
        self.linear.weight.data = weight.repeat(2 * len(lrs), 1)
        nn.init.zeros_(self.linear.bias)
        self.norm = nn.BatchNorm1d(self.linear.out_features) if norm else nn.Identity()
        self.rates = torch.tensor(lrs)

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b 2 m classes"]:
        return torch.unflatten(self.norm(self.linear(x)), 1, self.shape)

    def loss(
        self, x: Float[Tensor, "b d"], y: Int[Tensor, " b"], chooses_not: Bool[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        """Sum of the classifiers' cross-entropies times their learning rates: with momentum SGD at rate 1, each is trained at its own."""
        logits, y, chooses_not = self(x).flatten(0, 2), y.to(x.device), chooses_not.to(x.device)
        each = nn.functional.cross_entropy(
            logits, y.repeat_interleave(len(logits) // len(y)), reduction="none"
        )
        shares = torch.stack(
            (
                chooses_not / chooses_not.sum().clamp_min(1),
                torch.full_like(y, 1, dtype=each.dtype) / len(y),
            ),
            1,
        )
        return (each.view(len(y), *self.shape[:2]) * shares[:, :, None] * self.rates.to(each)).sum()

    @torch.no_grad()
    def hits(
        self,
        parts: Iterable[Float[Tensor, "b d"]],
        y: Int[Tensor, " n"],
    ) -> Bool[Tensor, "n 2 2 m"]:
        """Whether an image is among the first and the five first predictions of all classifiers.

        Args:
            parts: features of all images, in order; each is sent to the layer's device.
            y: classes by number.

        Returns:
            By image, first or five first, part of train, and learning rate, on the CPU, with the
            running statistics of the norm.
        """
        best = min(5, self.shape[2])
        with evaluating(self):
            tops = [self(part.to(self.linear.weight)).topk(best, 3).indices.cpu() for part in parts]
        right = torch.cat(tops) == y[:, None, None, None].cpu()
        return torch.stack((right[..., 0], right.any(3)), 1)

    def scores(
        self,
        parts: Iterable[Float[Tensor, "b d"]],
        y: Int[Tensor, " n"],
    ) -> Float[Tensor, "2 2 m"]:
        """Top-1 and top-5, per cent, of all classifiers: the mean of ``hits``."""
        return _percent(self.hits(parts, y))


def _percent(right: Bool[Tensor, "n ..."]) -> Float[Tensor, "..."]:
    """How many of the images, by whatever else there is."""
    return 100 * right.float().mean(0)


def _held(count: int, share: float, seed: int) -> Int[Tensor, " n"]:
    """Numbers of the training images that choose the learning rate, at most BYOL's 10,000; a ``CareError`` if there are too few."""
    chosen = torch.from_numpy(
        permutation(count, seed=seed, stream=0)[: min(round(count * share), 10_000)]
    )
    if not 0 < len(chosen) < count:
        raise CareError(f"cannot hold {share:.0%} of {count} training images out; use a larger set")
    return chosen


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
    return Accuracy(*_percent(right).tolist()), lr


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
    held, batch = _held(count, held_out, seed), min(batch_size, count)
    kept = ~torch.isin(torch.arange(count), held)
    standard = _Standard(train.x, where)
    heads = _Heads(train.x.shape[1], train.classes, lrs, norm, seed).to(where)
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
