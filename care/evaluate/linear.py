"""A linear classifier on a frozen encoder."""

import json
from collections.abc import Sequence
from pathlib import Path
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
import shards
from care import CareError, lr_at
from care.encoders import Encoder, evaluating
from care.evaluate.features import Accuracy, Evaluation, Features, all_known, centres, crops, extract, frozen, same_classes
from care.train.checkpoint import digest_of
from care.train.loading import worker_count
from care.train.run import Precision, Run
from shards.reader import permutation
from shards.terminal import Count, Natural, Positive, Share, Side

LRS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
FAST_LRS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SCORED = (1, 2, 5, 7)  # epochs after which the released code scores, beside every tenth and the last


def linear(encoder: Encoder, train: shards.ShardSet, val: shards.ShardSet, run: str | Path, *, size: Side | None = None, fast: bool = False,
           lrs: tuple[float, ...] | None = None, epochs: Count = 80, batch_size: Count = 256, norm: bool = False,
           min_scale: Positive = 0.08, held_out: Share = 0.2, seed: Natural = 0, precision: Precision = "fp32",
           workers: Natural | None = None, checkpoint_every: Count = 500, cache: str | Path | None = None) -> Evaluation:  # fmt: skip
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
        raise CareError(f"{train.path} has images without a class; the linear evaluation needs a set built from class folders")
    held, batch, where = _held(len(train), held_out, seed), min(batch_size, len(train)), next(encoder.parameters()).device
    recipe = f"{epochs} epochs of SGD at batch {batch}, learning rate chosen on held-out images of train"
    asked = extract(encoder, val, size=size, workers=workers, precision=precision, cache=cache)
    if fast:
        known = extract(encoder, train, size=size, workers=workers, precision=precision, cache=cache)
        tops, lr = linear_on_features(known, asked, lrs=lrs or FAST_LRS, epochs=epochs, batch_size=batch_size, norm=norm,
                                      held_out=held_out, seed=seed)  # fmt: skip
        protocol = f"one linear layer on standardised frozen features of centre crops of {size} px, {recipe}; not the paper's protocol"
        return Evaluation("linear on cached features", protocol, tops._asdict(), {"lrs": (lr,)})
    lrs, per_epoch = lrs or LRS, len(train) // batch
    steps, kept = epochs * per_epoch, ~torch.isin(torch.arange(len(train)), held)
    heads = _Heads(encoder.features, len(train.classes), lrs, norm, seed).to(where)
    optimizer = torch.optim.SGD([{"params": heads.parameters(), "initial_lr": batch / 256}], lr=0, momentum=0.9)
    settings = {"encoder": before, "data": train.digest, "val": val.digest, "size": size, "lrs": lrs, "steps": steps, "norm": norm,
                "batch_size": batch, "min_scale": min_scale, "held_out": len(held), "seed": seed, "precision": precision}  # fmt: skip
    losses = lambda x, y, rows: {"heads": heads.loss(frozen(encoder, x, precision), y, kept[rows])}  # noqa: E731

    def scores(step: int, _: dict[str, float]) -> dict[str, float]:
        epoch, rest = divmod(step + 1, per_epoch)
        scored = rest == 0 and (epoch in SCORED or epoch % 10 == 0 or epoch == epochs)
        return {f"val {lr:g}": top for lr, top in zip(lrs, heads.scores(asked.x, asked.y)[0, 1].tolist(), strict=True)} if scored else {}

    state = Run(run, heads, optimizer, settings, title="linear", precision="fp32", checkpoint_every=checkpoint_every, workers=workers)
    with evaluating(encoder), state:
        stream = crops(state, train, np.arange(len(train)), state.workers)
        state.steps(stream, losses, lambda step: lr_at(step, total=steps, base=1), "", then=scores)
        batches = [part.tolist() for part in torch.split(held, batch_size)]
        batch_bytes = batch_size * 3 * size**2
        workers = worker_count(workers, where, batches=len(batches), batch_bytes=batch_bytes)
        x = torch.cat([frozen(encoder, images, precision) for images in centres(train, batches, size=size, workers=workers)])
    if digest_of(encoder) != before:
        raise CareError("the encoder has changed under a linear evaluation, which must not be: its result would be of another encoder")
    best = int(heads.scores(x, torch.from_numpy(train.labels[held]))[0, 0].argmax())
    top1, top5 = heads.scores(asked.x, asked.y)[:, 1, best].tolist()
    rows = [json.loads(line) for line in (state.path / "losses.jsonl").read_text().splitlines()]
    measures = {"top1": top1, "top5": top5, "best1": max(row.get(f"val {lrs[best]:g}", 0.0) for row in rows)}
    protocol = f"one linear layer{' and batch norm' * norm} on the frozen encoder, random crops of {size} px and flips, {recipe}"
    return Evaluation("linear", protocol, measures, {"lrs": (lrs[best],)})


class _Heads(nn.Module):
    """Two linear classifiers for each learning rate by side in one layer: of the images that choose no rate, and of all."""

    def __init__(self, features: int, classes: int, lrs: Sequence[float], norm: bool, seed: int) -> None:
        super().__init__()
        self.shape = (2, len(lrs), classes)
        self.linear = nn.Linear(features, 2 * len(lrs) * classes, device="meta").to_empty(device="cpu")  # draws nothing
        weight = torch.randn(classes, features, generator=torch.Generator().manual_seed(seed)) * 0.01
        self.linear.weight.data = weight.repeat(2 * len(lrs), 1)
        nn.init.zeros_(self.linear.bias)
        self.norm = nn.BatchNorm1d(self.linear.out_features) if norm else nn.Identity()
        self.rates = torch.tensor(lrs)

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b 2 m classes"]:
        return torch.unflatten(self.norm(self.linear(x)), 1, self.shape)

    def loss(self, x: Float[Tensor, "b d"], y: Int[Tensor, " b"], chooses_not: Bool[Tensor, " b"]) -> Float[Tensor, ""]:
        """Sum of the classifiers' cross-entropies times their learning rates: with momentum SGD at rate 1, each is trained at its own."""
        logits, y, chooses_not = self(x).flatten(0, 2), y.to(x.device), chooses_not.to(x.device)
        each = nn.functional.cross_entropy(logits, y.repeat_interleave(len(logits) // len(y)), reduction="none")
        shares = torch.stack((chooses_not / chooses_not.sum().clamp_min(1), torch.full_like(y, 1, dtype=each.dtype) / len(y)), 1)
        return (each.view(len(y), *self.shape[:2]) * shares[:, :, None] * self.rates.to(each)).sum()

    @torch.no_grad()
    def scores(self, x: Float[Tensor, "n d"], y: Int[Tensor, " n"]) -> Float[Tensor, "2 2 m"]:
        """Top-1 and top-5, per cent, of all classifiers, with the norm's running statistics."""
        with evaluating(self):
            tops = [self(part.to(self.linear.weight)).topk(min(5, self.shape[2]), 3).indices.cpu() for part in torch.split(x, 1024)]
        hits = torch.cat(tops) == y[:, None, None, None].cpu()
        return 100 * torch.stack((hits[..., 0], hits.any(3))).float().mean(1)


def _held(count: int, share: float, seed: int) -> Int[Tensor, " n"]:
    """Numbers of the training images that choose the learning rate, at most BYOL's 10,000; a ``CareError`` if there are too few."""
    chosen = torch.from_numpy(permutation(count, seed=seed, stream=0)[: min(round(count * share), 10_000)])
    if not 0 < len(chosen) < count:
        raise CareError(f"cannot hold {share:.0%} of {count} training images out; use a larger set")
    return chosen


def linear_on_features(train: Features, val: Features, *, lrs: tuple[float, ...] = FAST_LRS, epochs: int = 80, batch_size: int = 256,
                       norm: bool = False, held_out: float = 0.2, seed: int = 0) -> tuple[Accuracy, float]:  # fmt: skip
    """Top-1, top-5 and rate of ``linear``'s layer on features standardised by train's mean and deviation; no class: ``CareError``."""
    all_known(torch.cat((train.y, val.y)), train.classes)
    held, batch = _held(len(train.x), held_out, seed), min(batch_size, len(train.x))
    mean, deviation = train.x.mean(0), train.x.std(0, correction=0).clamp_min(1e-6)
    x, y, kept = (train.x - mean) / deviation, train.y, ~torch.isin(torch.arange(len(train.x)), held)
    heads = _Heads(x.shape[1], train.classes, lrs, norm, seed)
    optimizer = torch.optim.SGD(heads.parameters(), lr=0, momentum=0.9, fused=True)
    for step in range(steps := epochs * (len(x) // batch)):
        rows = torch.tensor(shards.step_ids(len(x), batch_size=batch, step=step, seed=seed).ids)
        optimizer.param_groups[0]["lr"] = batch / 256 * lr_at(step, total=steps, base=1)
        torch.autograd.backward(heads.loss(x[rows], y[rows], kept[rows]))
        optimizer.step()
        optimizer.zero_grad()
    best = int(heads.scores(x[held], y[held])[0, 0].argmax())
    top1, top5 = heads.scores((val.x - mean) / deviation, val.y)[:, 1, best].tolist()
    return Accuracy(top1, top5), lrs[best]
