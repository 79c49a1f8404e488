"""The training loop, once: the README's loop with precision, checkpoints, logs, a guard against collapse, and a clean stop."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

import shards
from care.errors import CareError
from care.loss import care_loss
from care.momentum import update_targets
from care.schedules import lr_at, momentum_at
from care.streams import CStream, TStream
from care.train import checkpoint
from care.train.batches import batches
from care.train.run import Precision, Run, fastest_precision, seeded
from care.train.views import VIEWS, View

COLLAPSED = 0.02
"""Embedding spread below which a run counts as collapsed; independent directions have 1, one direction 0."""
PATIENCE = 20
"""Steps that the spread must stay below it before the run stops."""


class Pretrained(NamedTuple):
    """What ``pretrain`` leaves behind."""

    encoder: Path
    """``encoder.safetensors``: the online CNN encoder, all that is kept after training (Sec. 3.3)."""
    steps: int
    losses: dict[str, float]
    """Means over the last tenth of the run."""


def pretrain(
    data: shards.ShardSet,
    run: str | Path,
    c: CStream,
    t: TStream | None = None,
    *,
    size: int = 224,
    batch_size: int = 1024,
    steps: int,
    warmup: int = 0,
    lr: float = 0.05,
    weight_decay: float = 1e-4,
    momentum: float = 0.99,
    attention_weight: float = 100,
    views: tuple[View, View] = VIEWS,
    seed: int = 0,
    precision: Precision | None = None,
    device: str | None = None,
    workers: int = 0,
    checkpoint_every: int = 500,
) -> Pretrained:
    """Train both streams together (Sec. 3.3) into the directory ``run``; called again, it continues from the last checkpoint.

    Leaves ``encoder.safetensors``, ``losses.jsonl`` (one line a step, deterministic), ``timing.jsonl`` and ``checkpoints/``.

    Args:
        data: an open shard set; labels are not read.
        run: run directory.
        c: the C-stream; its online encoder is what training is for.
        t: the T-stream, or None for the C-stream alone.
        size: side of the views, pixels.
        batch_size: images a step.
        steps: length of the run.
        warmup: steps of linear warm-up (the paper: 10 epochs).
        lr: base learning rate for 256 images, scaled by batch_size / 256.
        weight_decay: on every parameter, as in the released code.
        momentum: first momentum coefficient of the targets.
        attention_weight: λ of Eq. 5.
        views: distributions of the two views.
        seed: fixes order and views. Initial weights are the caller's.
        precision: of the networks' arithmetic, by autocast; None for what the hardware computes natively, see ``fastest_precision``.
        device: "cuda", "cpu" or None for what there is.
        workers: processes that decode beside this one; the result does not depend on it.
        checkpoint_every: steps between checkpoints.

    Raises:
        CareError: the loss is not finite, the embeddings collapsed, or ``run`` holds a run of another kind.
        shards.ShardError: a damaged sample, too few images, no space left.
        Stopped: on SIGINT or SIGTERM, after saving.
    """
    if batch_size < 2 or steps < 1:
        raise CareError(f"wanted at least 2 images a step, for batch norm, and 1 step; got {batch_size} and {steps}")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    precision = precision or fastest_precision(where)
    model = nn.ModuleDict({"c": c} if t is None else {"c": c, "t": t}).to(where).to(memory_format=torch.channels_last).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=weight_decay, fused=True)
    settings = {
        "encoder": getattr(c.backbone.online, "name", ""), "data": data.digest, "size": size, "batch_size": batch_size, "steps": steps,
        "warmup": warmup, "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "attention_weight": attention_weight,
        "views": [list(v) for v in views], "seed": seed, "precision": precision,
        "objective": repr(c.objective), "t_stream": f"{t.objective} detach={t.detach}" if t else None,
    }  # fmt: skip
    state = Run(run, model, optimizer, settings, title="pre-training", precision=precision, checkpoint_every=checkpoint_every)
    pairs = [pair for stream in (c, t) if stream for pair in (stream.backbone, stream.projector)]
    low = 0

    with state:
        stream = batches(
            data, size=size, batch_size=batch_size, steps=steps, seed=seed, start=state.start, views=views, workers=workers, device=where
        )
        for step, (x1, x2) in stream:
            for group in optimizer.param_groups:
                group["lr"] = lr_at(step, total=steps, base=lr * batch_size / 256, warmup=warmup)
            with state.autocast, seeded(seed, step, where):
                c_out = c(x1.contiguous(memory_format=torch.channels_last), x2.contiguous(memory_format=torch.channels_last))
                t_out = t(c_out.maps) if t else None
            loss = care_loss(c_out, t_out, attention_weight=attention_weight)
            # the total last: any of its terms spoils it
            terms = {name: float(getattr(loss, name).detach()) for name in ("cnn", "transformer", "attention", "total")}
            terms["spread"] = spread(c_out.target[0])
            low = low + 1 if terms["spread"] < COLLAPSED else 0
            if low >= PATIENCE:
                raise CareError(
                    f"the embeddings collapsed: spread {terms['spread']:.4f} at step {step}, below {COLLAPSED} for {low} steps; "
                    "lower lr, lengthen warmup or raise momentum, then start a new run directory"
                )
            state.optimize(step, loss.total, terms)
            update_targets(pairs, momentum_at(step + 1, total=steps, base=momentum))
            shown = "C {cnn:.3f} T {transformer:.3f} att {attention:.5f}" if t else "C {cnn:.3f}"
            state.commit(step, {**terms, "lr": group["lr"]}, (shown + " spread {spread:.2f}").format(**terms))

    checkpoint.save_encoder(state.path / "encoder.safetensors", c.backbone.online, size=size)
    return Pretrained(state.path / "encoder.safetensors", steps, _last_tenth(state.path / "losses.jsonl"))


def spread(embeddings: Float[Tensor, "b d"]) -> float:
    """√d times the mean over channels of the standard deviation of unit embeddings: about 1 when healthy, 0 when collapsed."""
    unit = F.normalize(embeddings.detach().float(), dim=1)
    return float(unit.std(0).mean() * unit.shape[1] ** 0.5)


def _last_tenth(path: Path) -> dict[str, float]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    tail = rows[-max(len(rows) // 10, 1) :]
    return {name: sum(row[name] for row in tail) / len(tail) for name in ("total", "cnn", "transformer", "attention", "spread")}
