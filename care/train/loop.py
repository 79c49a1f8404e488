"""The training loop, once: the README's loop with precision, several processes, checkpoints, logs, a guard against collapse."""

import ctypes
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import shards
from care import CareError, CStream, TStream, care_loss, lr_at, momentum_at, ranks
from care.encoders import Encoder
from care.momentum import update_targets
from care.ranks import synchronise
from care.train import checkpoint
from care.train.batches import batches
from care.train.run import Precision, Run, fastest_precision, seeded
from care.train.views import VIEWS, View
from shards import storage
from shards.options import Amount, Batch, Count, Natural, Share, Side
from shards.progress import console

COLLAPSED = 0.02  # embedding spread below which a run counts as collapsed; independent directions have 1, one direction 0
PATIENCE = 20  # steps that the spread must stay below it before the run stops; half-way there it warns
TERMS = ("cnn", "transformer", "attention", "total", "spread")


class Pretrained(NamedTuple):
    """What ``pretrain`` leaves behind."""

    encoder: str | Path  # encoder.safetensors: the online CNN encoder, all that is kept after training (Sec. 3.3)
    steps: int
    losses: dict[str, float]  # means over the last tenth of the run


class Losses(nn.Module):
    """Both streams and their loss as one module; on several processes the loss of the whole batch, whatever the objective."""

    def __init__(self, c: CStream, t: TStream | None, attention_weight: float) -> None:
        super().__init__()
        self.c, self.t, self.weight = c, t, attention_weight

    def forward(self, x1: Float[Tensor, "b 3 h w"], x2: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor]:
        """The total loss, and the values of ``TERMS``."""
        own = self.c(x1, x2)
        outs = [own, self.t(own.maps)] if self.t else [own]
        c_out, *t_out = (out._replace(online=_everyones(out.online), target=_everyones(out.target)) for out in outs)
        loss = care_loss(c_out, *t_out, attention_weight=self.weight)
        terms = (loss.cnn, loss.transformer, loss.attention, loss.total, spread(c_out.target[0]))
        return loss.total, torch.stack([term.detach().double() for term in terms])


def pretrain(
    data: shards.ShardSet, run: str | Path, c: CStream, t: TStream | None = None, *, size: Side = 224, batch_size: Batch = 1024,
    steps: int, warmup: int = 0, lr: Amount = 0.05, weight_decay: Amount = 1e-4, momentum: Share = 0.99, attention_weight: Amount = 100,
    views: tuple[View, View] = VIEWS, seed: Natural = 0, precision: Precision | None = None,
    device: Literal["cuda", "cpu"] | None = None, workers: Natural = 0, accumulate: Count = 1, checkpoint_every: Count = 500,
    keep_every: Natural = 0, allow_change: Sequence[str] = (),
    probe: Callable[[Encoder], dict[str, float]] | None = None, probe_every: int = 0,
) -> Pretrained:  # fmt: skip
    """Train both streams together (Sec. 3.3) into the directory ``run``; called again, it continues from the last checkpoint.

    Leaves ``encoder.safetensors``, ``losses.jsonl`` (one line a step, deterministic), ``timing.jsonl``, ``status.json``, ``checkpoints/``.
    Called by every process of a group (``care.train.launch.joined``), each takes its slice of every batch; losses and batch norms'
    statistics are those of all of them, so the number of processes changes nothing but rounding.

    Args:
        data: an open shard set; labels are not read.
        run: run directory, or its URL.
        c: the C-stream; its online encoder is what training is for.
        t: the T-stream, or None for the C-stream alone.
        size: side of the views, pixels.
        batch_size: images a step, on all processes together.
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
        accumulate: parts in which a process takes its slice, for less memory; batch norm sees one part (of all processes) at a time.
        checkpoint_every: steps between checkpoints.
        keep_every: steps between checkpoints that stay for good.
        allow_change: settings that may differ from those that ``run`` was started with.
        probe: judges the online encoder, in eval mode, on the first process; its numbers join the step's line in ``losses.jsonl``.
        probe_every: steps between two probes; 0 is never.

    Raises:
        CareError: the loss is not finite, the embeddings collapsed, ``run`` holds another run, or the processes' weights differ.
        Stopped: on SIGINT or SIGTERM, after saving.
    """
    world = ranks.world()
    if batch_size < 2 or steps < 1:
        raise CareError(f"wanted at least 2 images a step, for batch norm, and 1 step; got {batch_size} and {steps}")
    if accumulate < 1 or batch_size % (world * accumulate) or batch_size // accumulate < 2:
        raise CareError(f"cannot cut {batch_size} images a step into {world} processes × {accumulate} equal parts; use a multiple of both")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    precision = precision or fastest_precision(where)
    synchronise(model := Losses(c, t, attention_weight).to(where).to(memory_format=torch.channels_last).train())
    if where.type == "cpu":
        keep_memory()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=weight_decay, fused=True)
    settings = {
        "encoder": getattr(c.backbone.online, "name", ""), "data": data.digest, "size": size, "batch_size": batch_size, "steps": steps,
        "warmup": warmup, "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "attention_weight": attention_weight,
        "views": [list(v) for v in views], "seed": seed, "precision": precision, "accumulate": accumulate,
        "objective": repr(c.objective), "t_stream": f"{t.objective} detach={t.detach}" if t else None,
    }  # fmt: skip
    state = Run(
        run, model, optimizer, settings, title="pre-training", precision=precision, checkpoint_every=checkpoint_every,
        keep_every=keep_every, allow_change=allow_change,
    )  # fmt: skip
    pairs = [pair for stream in (c, t) if stream for pair in (stream.backbone, stream.projector)]
    log, shown = state.path / "losses.jsonl", "C {cnn:.3f} T {transformer:.3f} att {attention:.5f}" if t else "C {cnn:.3f}"

    with state:
        step_of, low = ranks.parallel(model), _collapsed_steps(log)
        stream = batches(
            data, size=size, batch_size=batch_size, steps=steps, seed=seed, start=state.start, views=views, workers=workers, device=where
        )
        for step, both in state.waiting(stream):
            optimizer.param_groups[0]["lr"] = rate = lr_at(step, total=steps, base=lr * batch_size / 256, warmup=warmup)
            views1, views2 = (x.to(parameters[0].dtype, memory_format=torch.channels_last).chunk(accumulate) for x in both)
            updated = False
            while not updated:
                sums = torch.zeros(len(TERMS), dtype=torch.float64, device=where)
                with seeded(seed, step, where):
                    for number, part in enumerate(zip(views1, views2, strict=True), 1):
                        # gradients of all processes are averaged once, with the last part
                        with step_of.no_sync() if isinstance(step_of, DistributedDataParallel) and number < accumulate else nullcontext():
                            with state.autocast:
                                loss, values = step_of(*part)
                            state.backward(loss / accumulate)
                        sums += values / accumulate
                terms = dict(zip(TERMS, sums.tolist(), strict=True))
                updated = state.update(step, terms)
            low = low + 1 if terms["spread"] < COLLAPSED else 0
            if low == PATIENCE // 2 and state.lead:
                console.print(f"[yellow]the embeddings are collapsing: spread {terms['spread']:.4f} at step {step}")
            if low >= PATIENCE:
                raise CareError(
                    f"the embeddings collapsed: spread {terms['spread']:.4f} at step {step}, below {COLLAPSED} for {low} steps; "
                    "lower lr, lengthen warmup or raise momentum, then start a new run directory"
                )
            update_targets(pairs, momentum_at(step + 1, total=steps, base=momentum))
            row = {**terms, "lr": rate}
            if probe and probe_every and (step + 1) % probe_every == 0 and state.lead:
                row |= probe(c.backbone.online.eval())  # type: ignore[arg-type]
                c.backbone.online.train()
            state.commit(step, row, (shown + " spread {spread:.2f}").format(**terms))
        encoder = f"{run}/encoder.safetensors" if storage.is_remote(run) else state.path / "encoder.safetensors"
        if state.lead:
            checkpoint.save_encoder(encoder, c.backbone.online, size=size)
    lines = log.read_text().splitlines() if state.lead else []  # others know of no mean, and take the first process's
    tail = [json.loads(line) for line in lines[-max(len(lines) // 10, 1) :]]
    means = ranks.largest(*(sum(row[name] for row in tail) / len(tail) if tail else -torch.inf for name in TERMS))
    return Pretrained(encoder, steps, dict(zip(TERMS, means, strict=True)))


def _everyones(embeddings: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return ranks.gathered(embeddings[0]), ranks.gathered(embeddings[1])


def keep_memory() -> None:
    """Let glibc keep freed memory: returning and faulting in every large tensor again takes a tenth of a step on a CPU."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(-4, 0)  # M_MMAP_MAX: all from the heap
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: whose end is not given back


def _collapsed_steps(losses: Path) -> int:
    """Steps at the end of a log whose spread is that of collapsed embeddings."""
    lines = losses.read_text().splitlines()[-PATIENCE:] if losses.exists() else []
    return len([*takewhile(lambda line: json.loads(line)["spread"] < COLLAPSED, reversed(lines))])


def spread(embeddings: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """√d times the mean over channels of the standard deviation of unit embeddings: about 1 when healthy, 0 when collapsed."""
    deviation: Tensor = F.normalize(embeddings.detach().float(), dim=1).std(0).mean() * embeddings.shape[1] ** 0.5
    return deviation
