"""The training loop, once: the README's loop with precision, several processes, checkpoints, logs, a guard against collapse."""

import ctypes
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, NamedTuple
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care import CareError, CStream, Transformer, TStream, care_loss, lr_at, momentum_at
from care.encoded import evaluating
from care.encoders import Encoder
from care.momentum import update_targets
from care.streams import CStreamOut, Maps, TStreamOut
from care.train import checkpoint, mirror, ranks, weights
from care.train.batches import batches
from care.train.collapse import COLLAPSED, PATIENCE, spread
from care.train.norm import synchronise
from care.train.precision import Precision, StreamPrecisions, measured_precisions, stream_precision
from care.train.run import Run
from care.train.view_threads import ViewThreads, views_in_threads
from care.train.views import VIEWS, View
from shards import ShardSet, storage
from shards.terminal import Amount, Batch, Count, Natural, Share, Side, console

TERMS = ("cnn", "transformer", "attention", "total", "spread")


class Pretrained(NamedTuple):
    """What ``pretrain`` leaves behind."""

    encoder: (
        str | Path
    )  # encoder.safetensors: the online CNN encoder, all that is kept after training (Sec. 3.3)
    steps: int
    losses: dict[str, float]  # means over the last tenth of the run


class Losses(nn.Module):
    """Both streams and their loss as one module; on several processes the loss of the whole batch, whatever the objective."""

    def __init__(self, c: CStream, t: TStream | None, attention_weight: float) -> None:
        super().__init__()
        self.c, self.t, self.weight = c, t, attention_weight
        self.view_threads: ViewThreads | None = None  # a CPU's way to both streams' outputs
        self.t_precision: Precision | None = None  # where it is not that of the caller's autocast

    def forward(
        self, x1: Float[Tensor, "b 3 h w"], x2: Float[Tensor, "b 3 h w"]
    ) -> dict[str, Tensor]:
        """``TERMS`` by name; ``total`` is the loss."""
        c_own, t_own = self.view_threads(x1, x2) if self.view_threads else self._embed(x1, x2)
        outs: list[Any] = [c_own, t_own] if t_own else [c_own]
        c_out, *t_out = (
            out._replace(
                online=(ranks.gather_rows(out.online[0]), ranks.gather_rows(out.online[1])),
                target=(ranks.gather_rows(out.target[0]), ranks.gather_rows(out.target[1])),
            )
            for out in outs
        )
        loss = care_loss(c_out, *t_out, attention_weight=self.weight)
        return dict(
            zip(
                TERMS,
                (loss.cnn, loss.transformer, loss.attention, loss.total, spread(c_out.target[0])),
                strict=True,
            )
        )

    def _embed(self, x1: Tensor, x2: Tensor) -> tuple[CStreamOut, TStreamOut | None]:
        c_out = self.c(x1, x2)
        if self.t is None:
            return c_out, None
        with stream_precision(x1.device, self.t_precision) as cast:
            (online1, online2), (target1, target2) = c_out.maps
            maps = Maps((cast(online1), cast(online2)), (cast(target1), cast(target2)))
            return c_out, self.t(maps)


def pretrain(
    data: ShardSet,
    run: str | Path,
    c: CStream,
    t: TStream | None = None,
    *,
    size: Side = 224,
    batch_size: Batch = 1024,
    steps: int,
    warmup: int = 0,
    lr: Amount = 0.05,
    weight_decay: Amount = 1e-4,
    momentum: Share = 0.99,
    attention_weight: Amount = 100,
    views: tuple[View, View] = VIEWS,
    seed: Natural = 0,
    precision: Precision | None = None,
    device: Literal["cuda", "cpu"] | None = None,
    workers: Natural | None = None,
    accumulate: Count = 1,
    checkpoint_every: Count = 500,
    keep_every: Natural = 0,
    allow_change: Sequence[str] = (),
    probe: Callable[[Encoder], dict[str, float]] | None = None,
    probe_every: int = 0,
) -> Pretrained:
    """Train both streams together (Sec. 3.3) into the directory ``run``; called again, it continues from the last checkpoint.

    Leaves ``encoder.safetensors``, ``losses.jsonl`` (a line a step, deterministic), ``checkpoints/``, and more (docs/training.md).
    Called by every process of a group (``care.train.ranks.joined``), each takes its slice of every batch; losses and batch norms'
    statistics are those of all of them, so their number changes nothing but rounding. SIGINT and SIGTERM save, then it is ``Stopped``.
    A loss that is not finite, collapsed embeddings, a ``run`` of other settings, or processes that differ are a ``CareError``.

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
        precision: of the networks' arithmetic, by autocast; by default what is fastest here, see ``measured_precisions``.
        device: "cuda", "cpu" or None for what there is.
        workers: processes that decode beside each that computes, by default what is best here; the result does not depend on it.
        accumulate: parts in which a process takes its slice, for less memory; batch norm sees one part (of all processes) at a time.
        checkpoint_every: steps between checkpoints.
        keep_every: steps between checkpoints that stay for good.
        allow_change: settings that may differ from those that ``run`` was started with.
        probe: judges the online encoder, in eval mode, on the first process; its numbers join the step's line in ``losses.jsonl``.
        probe_every: steps between two probes; 0 is never.
    """
    if (
        steps < 1
        or accumulate < 1
        or batch_size % (ranks.world() * accumulate)
        or batch_size // accumulate < 2
    ):
        wanted = f"a multiple, at least 2 images a step and part, for batch norm, and 1 step, not {steps}"
        raise CareError(
            f"cannot cut {batch_size} images a step into {ranks.world()} processes × {accumulate} equal parts; wanted {wanted}"
        )
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    synchronise(
        model := Losses(c, t, attention_weight)
        .to(where)
        .to(memory_format=torch.channels_last)
        .train()
    )
    ranks.limit_threads()
    precisions = _precisions(
        run, c, t, precision, size=size, images=batch_size // ranks.world() // accumulate
    )
    precision, model.t_precision = precisions
    if where.type == "cpu" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        # glibc: returning and faulting in every large tensor again takes a tenth of a step; all from the heap, whose end is kept
        mallopt(-4, 0)  # M_MMAP_MAX
        mallopt(-1, -1)  # M_TRIM_THRESHOLD
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        [{"params": parameters, "initial_lr": 1}],
        lr=lr,
        momentum=0.9,
        weight_decay=weight_decay,
        fused=True,
    )
    settings = {
        "encoder": getattr(c.backbone.online, "name", ""),
        "data": data.digest,
        "size": size,
        "batch_size": batch_size,
        "steps": steps,
        "warmup": warmup,
        "lr": lr,
        "weight_decay": weight_decay,
        "momentum": momentum,
        "attention_weight": attention_weight,
        "views": [list(v) for v in views],
        "seed": seed,
        "precision": precision,
        "accumulate": accumulate,
        "objective": repr(c.objective),
        "t_stream": f"{t.objective} detach={t.detach}" if t else None,
        "attention": _attention(t),
        "t_precision": precisions.t,
    }
    rate = lambda step: lr_at(step, total=steps, base=lr * batch_size / 256, warmup=warmup)  # noqa: E731
    pairs = [pair for stream in (c, t) if stream for pair in (stream.backbone, stream.projector)]
    shown = (
        "C {cnn:.3f} T {transformer:.3f} att {attention:.5f} spread {spread:.2f}"
        if t
        else "C {cnn:.3f} spread {spread:.2f}"
    )
    by_view = (
        views_in_threads(c, t, size=size, t_precision=precisions.t)
        if where.type == "cpu" and ranks.world() == 1
        else nullcontext()
    )
    with (
        by_view as model.view_threads,
        Run(
            run,
            model,
            optimizer,
            settings,
            title="pre-training",
            precision=precision,
            checkpoint_every=checkpoint_every,
            keep_every=keep_every,
            allow_change=allow_change,
            workers=workers,
            threads=model.view_threads.computing if model.view_threads else None,
        ) as state,
    ):
        log = state.path / "losses.jsonl"
        lines = log.read_text().splitlines()[-PATIENCE:] if log.exists() else []
        low = len(
            [*takewhile(lambda line: json.loads(line)["spread"] < COLLAPSED, reversed(lines))]
        )  # collapsed steps at the end

        def after(step: int, terms: dict[str, float]) -> dict[str, float]:
            nonlocal low
            low = low + 1 if terms["spread"] < COLLAPSED else 0
            found = f"spread {terms['spread']:.4f} at step {step}"
            if low == PATIENCE // 2 and state.lead:
                console.print(f"[yellow]the embeddings are collapsing: {found}")
            if low >= PATIENCE:
                advice = (
                    "lower lr, lengthen warmup or raise momentum, then start a new run directory"
                )
                raise CareError(
                    f"the embeddings collapsed: {found}, below {COLLAPSED} for {low} steps; {advice}"
                )
            update_targets(pairs, momentum_at(step + 1, total=steps, base=momentum))
            if not (probe and probe_every and (step + 1) % probe_every == 0 and state.lead):
                return {}
            with evaluating(c.backbone.online):
                return probe(c.backbone.online)  # type: ignore[arg-type]

        stream = batches(
            data,
            size=size,
            batch_size=batch_size,
            steps=steps,
            seed=seed,
            start=state.start,
            views=views,
            workers=state.workers,
            device=where,
        )
        kind, form = parameters[0].dtype, torch.channels_last
        parts = lambda both: [
            *zip(*(x.to(kind, memory_format=form).chunk(accumulate) for x in both), strict=True)
        ]
        state.steps(
            (both for _, both in stream), ranks.parallel(model), rate, shown, cut=parts, then=after
        )
        encoder = (
            f"{run}/encoder.safetensors"
            if storage.is_remote(run)
            else state.path / "encoder.safetensors"
        )
        if state.lead:
            weights.save_encoder(encoder, c.backbone.online, size=size)
    rows = (
        [json.loads(line) for line in log.read_text().splitlines()[-max(steps // 10, 1) :]]
        if state.lead
        else []
    )
    means = ranks.max_over_ranks(
        *(sum(row[name] for row in rows) / len(rows) if rows else -torch.inf for name in TERMS)
    )  # the first process's
    return Pretrained(encoder, steps, dict(zip(TERMS, means, strict=True)))


def _precisions(
    run: str | Path,
    c: CStream,
    t: TStream | None,
    precision: Precision | None,
    *,
    size: int,
    images: int,
) -> StreamPrecisions:
    """Each stream's precision: as asked for, as the run began, or the faster one here."""
    if precision:
        return StreamPrecisions(precision, precision)
    if saved := checkpoint.latest(mirror.local_copy(run)):
        of_run = saved.manifest["settings"]
        return StreamPrecisions(of_run["precision"], of_run.get("t_precision", of_run["precision"]))
    measured = measured_precisions(c, t, size=size, batch_size=images)
    # every process measures; only what all find faster is reduced
    in_float32 = ranks.max_over_ranks(*(float(of_stream == "fp32") for of_stream in measured))
    return StreamPrecisions(
        *(
            "fp32" if found else of_stream
            for found, of_stream in zip(in_float32, measured, strict=True)
        ),
    )


def _attention(t: TStream | None) -> str | None:
    """Shape of the T-stream's attention; weights of another one are of another network."""
    transformer = t.backbone.online if t else None
    if not isinstance(transformer, Transformer):
        return None
    return f"{transformer.heads} heads of {transformer.dim}"
