"""The training loop, once: the README's loop with precision, checkpoints, logs, a guard against collapse, and a clean stop."""

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

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
from care.train.views import VIEWS, View
from shards import storage
from shards.progress import progress

Precision = Literal["bf16", "fp16", "fp32"]
COLLAPSED = 0.02
"""Embedding spread below which a run counts as collapsed; independent directions have 1, one direction 0."""
PATIENCE = 20
"""Steps that the spread must stay below it before the run stops."""


class Stopped(Exception):  # noqa: N818 (no error: it was asked for)
    """The run was asked to stop (SIGINT or SIGTERM) and has saved itself; the same call continues it."""


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
    precision, folder = precision or fastest_precision(where), storage.local(run)
    model = nn.ModuleDict({"c": c} if t is None else {"c": c, "t": t}).to(where).to(memory_format=torch.channels_last).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=weight_decay, fused=True)
    scaler = torch.amp.GradScaler(where.type, enabled=precision == "fp16")
    settings = {
        "encoder": getattr(c.backbone.online, "name", ""), "data": data.digest, "size": size, "batch_size": batch_size, "steps": steps,
        "warmup": warmup, "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "attention_weight": attention_weight,
        "views": [list(v) for v in views], "seed": seed, "precision": precision, "t_stream": t is not None,
    }  # fmt: skip
    start = 0
    if (found := checkpoint.latest(folder)) is not None:
        _same_settings(folder, found.manifest["settings"], settings)
        checkpoint.restore(found, model, optimizer)
        scaler.load_state_dict(found.manifest["scaler"])
        start = found.step
    pairs = [pair for stream in (c, t) if stream for pair in (stream.backbone, stream.projector)]
    autocast = torch.autocast(where.type, dtype=torch.float16 if precision == "fp16" else torch.bfloat16, enabled=precision != "fp32")
    low, began = 0, time.monotonic()

    def save(step: int) -> None:
        manifest = {"step": step, "settings": settings, "scaler": scaler.state_dict()}
        checkpoint.save(folder, model, optimizer, manifest)

    with (
        _log(folder / "losses.jsonl", start) as losses,
        _log(folder / "timing.jsonl", start) as timing,
        progress("pre-training", steps * batch_size, start=start * batch_size) as advance,
        _stop_requests() as stop,
    ):
        stream = batches(
            data, size=size, batch_size=batch_size, steps=steps, seed=seed, start=start, views=views, workers=workers, device=where
        )
        for step, (x1, x2) in stream:
            for group in optimizer.param_groups:
                group["lr"] = lr_at(step, total=steps, base=lr * batch_size / 256, warmup=warmup)
            with autocast:
                c_out = c(x1.contiguous(memory_format=torch.channels_last), x2.contiguous(memory_format=torch.channels_last))
                t_out = t(c_out.maps) if t else None
            loss = care_loss(c_out, t_out, attention_weight=attention_weight)
            terms = {name: float(value.detach()) for name, value in loss._asdict().items()} | {"spread": spread(c_out.target[0])}
            low = low + 1 if terms["spread"] < COLLAPSED else 0
            _check(step, terms, low)
            torch.autograd.backward(scaler.scale(loss.total))
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            update_targets(pairs, momentum_at(step + 1, total=steps, base=momentum))
            losses.write(json.dumps({"step": step, **terms, "lr": group["lr"]}) + "\n")
            timing.write(json.dumps({"step": step, "seconds": round(time.monotonic() - began, 3)}) + "\n")
            shown = "C {cnn:.3f} T {transformer:.3f} att {attention:.5f}" if t else "C {cnn:.3f}"
            advance(batch_size, (shown + " spread {spread:.2f}").format(**terms))
            done = step + 1
            if done % checkpoint_every == 0 or done == steps or stop.is_set():
                save(done)
            if stop.is_set() and done < steps:
                raise Stopped(f"stopped on request after step {done} of {steps} and saved; the same command continues")

    checkpoint.save_encoder(folder / "encoder.safetensors", c.backbone.online, size=size)
    return Pretrained(folder / "encoder.safetensors", steps, _last_tenth(folder / "losses.jsonl"))


def fastest_precision(device: torch.device) -> Precision:
    """bfloat16 where the hardware has it (emulated it is slower than float32), else float16 on CUDA and float32 on a CPU."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16") else "fp32"


def spread(embeddings: Float[Tensor, "b d"]) -> float:
    """√d times the mean over channels of the standard deviation of unit embeddings: about 1 when healthy, 0 when collapsed."""
    unit = F.normalize(embeddings.detach().float(), dim=1)
    return float(unit.std(0).mean() * unit.shape[1] ** 0.5)


def _check(step: int, terms: dict[str, float], low: int) -> None:
    for name in ("cnn", "transformer", "attention", "total", "spread"):  # the total last: any of its terms spoils it
        if not math.isfinite(value := terms[name]):
            raise CareError(f"the {name} loss is {value} at step {step}; lower lr or lengthen warmup, then start a new run directory")
    if low >= PATIENCE:
        raise CareError(
            f"the embeddings collapsed: spread {terms['spread']:.4f} at step {step}, below {COLLAPSED} for {low} steps; "
            "lower lr, lengthen warmup or raise momentum, then start a new run directory"
        )


def _same_settings(run: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    now = json.loads(json.dumps(now))
    for field in sorted(before.keys() | now.keys()):
        if before.get(field) != now.get(field):
            raise CareError(
                f"{run} was trained with {field}={before.get(field)}, this call has {field}={now.get(field)}; "
                "repeat the first call's settings or choose a new run directory"
            )


@contextmanager
def _log(path: Path, start: int) -> Iterator[IO[str]]:
    """The JSON-lines file open for appending line by line, without the lines of steps that will be done again."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    storage.write_bytes(path, "".join(lines[:start]).encode())
    with path.open("a", buffering=1) as file:  # a kill, or a report on a live run, meets whole lines
        yield file


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; elsewhere than in the main thread, where Python allows no handlers, it stays clear."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _last_tenth(path: Path) -> dict[str, float]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    tail = rows[-max(len(rows) // 10, 1) :]
    return {name: sum(row[name] for row in tail) / len(tail) for name in ("total", "cnn", "transformer", "attention", "spread")}
