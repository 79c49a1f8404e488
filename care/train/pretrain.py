"""Pre-training (Sec. 3.3): the README's loop in a run directory, for one process or many."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
import torch
from torch import Tensor, nn
from care import CareError, CStream, Transformer, TStream, momentum_at
from care.encoded import IMAGE_AXES, refuse_bands
from care.momentum import update_targets
from care.train import ranks
from care.train.batches import Batch, batches, bytes_of_views
from care.train.collapse import CollapseGuard
from care.train.devices import keep_freed_memory, torch_device
from care.train.fourth_band import fit_fourth_band
from care.train.growth import describe_growth
from care.train.initial import start_from
from care.train.losses import TERMS, Losses
from care.train.machine import Machine
from care.train.measured_precision import continued_precisions
from care.train.norm import synchronise
from care.train.optimizers import SGD, Optimizer, optimizer_settings, set_rates
from care.train.origin import write_origin
from care.train.precision import Precision, StreamPrecisions
from care.train.probes import Probe, TimedProbe, judge_on_the_way
from care.train.recompute import Recompute, recomputing
from care.train.run import Run
from care.train.run_log import OnStep
from care.train.stored import fit_positions, set_size
from care.train.view_checks import check_views
from care.train.views import VIEWS, View
from care.train.weights import save_encoder
from shards import ShardSet
from shards.bounds import (
    BatchSize,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
)
from shards.image_size import ImageSize, image_size
from shards.progress import warn


class Pretrained(NamedTuple):
    """What ``pretrain`` leaves behind.

    Attributes:
        encoder: path or URL of ``encoder.safetensors``, the online CNN encoder: all that is kept
            after training (Sec. 3.3).
        steps: length of the run.
        losses: means of the loss's terms, and of the spread, over the last tenth of the run.
    """

    encoder: str | Path
    steps: int
    losses: dict[str, float]


def pretrain(  # noqa: PLR0913 (keywords; one of the public verbs)
    data: ShardSet,
    run: str | Path,
    c: CStream,
    t: TStream | None = None,
    *,
    size: ImageSize = 224,
    batch_size: BatchSize = 1024,
    steps: int,
    optimizer: Optimizer = SGD(),
    momentum: Fraction = 0.99,
    momentum_rises: bool = True,
    attention_weight: NonNegativeFloat = 100,
    views: Sequence[View] = VIEWS,
    seed: NonNegativeInt = 0,
    precision: Precision | None = None,
    accumulate: PositiveInt = 1,
    recompute: Recompute = "none",
    init: str | Path | None = None,
    machine: Machine = Machine(),
    allow_change: Sequence[str] = (),
    probe: Probe | None = None,
    probe_every: int = 0,
    probes: Sequence[TimedProbe] = (),
    on_step: OnStep | None = None,
) -> Pretrained:
    """Train both streams together (Sec. 3.3) in the directory ``run``.

    Called again, it continues from the last checkpoint. It leaves ``encoder.safetensors``,
    ``losses.jsonl`` (a line a step, deterministic), ``checkpoints/`` and more (docs/training.md).
    The initial weights are those that the streams have.

    Called by every process of a group (``care.train.launch.process_group``), each takes its slice
    of every batch. The losses and the statistics of batch norms are those of all of them, so their
    number changes nothing but rounding.

    Args:
        data: an open shard set; labels are not read.
        run: run directory, or its URL.
        c: the C-stream; its online encoder is what training is for.
        t: the T-stream, or None for the C-stream alone.
        size: of the views, pixels, or height and width such as 96x192, where they have none of
            their own.
        batch_size: images a step, on all processes together.
        steps: length of the run.
        optimizer: with learning rate, its warm-up and weight decay; by default the paper's SGD.
            Others are LARS, LARC and AdamW, see ``care.train.optimizers``.
        momentum: first momentum coefficient of the targets.
        momentum_rises: it goes to 1 over the run, as the paper's, or stays, as MoCo's.
        attention_weight: λ of Eq. 5, by which the attention supervision counts.
        views: distribution of each view, by default of the paper's two. The target network and the
            T-stream see the first two; what follows, such as small crops, is for objectives that
            learn from it.
        seed: fixes order and views.
        precision: of the networks' arithmetic; by default what is fastest on this machine.
        accumulate: parts into which a batch is cut, for less memory; batch norm sees one part (of
            all processes) at a time.
        recompute: activations that are computed again in the backward pass instead of kept, for
            less memory and the same result: none, some (the first half of the encoder's blocks, a
            quarter less of ResNet-50 for about a tenth of the time), or all.
        init: what the encoder starts from instead of random weights: a run, a file of weights or
            supervised:NAME, of the same architecture; heads and transformer start at random.
        machine: device, workers and checkpoints, none of which decides the result.
        allow_change: settings that may differ from those that ``run`` was started with, by their
            names here or on the command line.
        probe: judges the online encoder, in eval mode, on the first process; its numbers join the
            step's line in ``losses.jsonl``.
        probe_every: steps between two probes; 0 is never.
        probes: more of them, each with steps of its own.
        on_step: is called by the first process after each line of ``losses.jsonl``, with the step
            and its numbers, see ``care.train.Run``.

    Returns:
        Where the encoder is, the steps that are done, and the last losses.

    Raises:
        CareError: A loss is not finite, the embeddings collapsed, ``run`` is one of other settings,
            or the processes differ.
        Stopped: SIGINT or SIGTERM came; all is saved, the same call continues.
    """
    _check_parts(steps, batch_size, accumulate)
    size = image_size(size)
    device = torch_device(machine.device)
    refuse_bands(data.channels, c.backbone.online)
    check_views(views, size, c, t)
    init_digest = None if init is None else start_from(init, c)
    if init is None:
        fit_fourth_band(c, data)
    seen_size = views[0].seen_size(size)
    _tell_size(c, seen_size, has_weights=init is not None)
    images = batch_size // accumulate
    model = _losses_on(device, c, t, attention_weight, images=images, images_of_set=len(data))
    precisions = continued_precisions(run, c, t, precision, views, size, images=images)
    torch_optimizer = optimizer.build(_trained_parameters(model))
    keep_freed_memory(device)
    settings = {
        **_network_settings(c, t, precisions),
        "data": data.digest,
        "size": size,
        "batch_size": batch_size,
        "steps": steps,
        **optimizer_settings(optimizer),
        "momentum": momentum,
        "attention_weight": attention_weight,
        "views": [view.settings() for view in views],
        "seed": seed,
        "accumulate": accumulate,
    }
    settings |= _rare_settings(init_digest, momentum_rises=momentum_rises)
    with (
        recomputing(c, t, recompute),
        model.computing(precisions.t, seen_size, in_threads=_fit_threads(views)),
        Run(
            run,
            model,
            torch_optimizer,
            settings,
            title="pre-training",
            precision=precisions.c,
            machine=machine,
            allow_change=allow_change,
            threads=model.computing_threads,
            images=len(data),
            example_bytes=bytes_of_views(views, size),
            on_step=on_step,
        ) as state,
    ):
        if state.lead:
            write_origin(state.path, data)
        growth = describe_growth(state.before, settings, optimizer, start=state.start)
        if growth and state.lead:
            warn(f"{run}: {growth}")
        guard = CollapseGuard(state.log, warns=state.lead)
        losses = ranks.parallel(model)
        due_probes = [*([TimedProbe(probe, probe_every)] if probe else []), *probes]
        stream = batches(
            data,
            size=size,
            batch_size=batch_size,
            steps=steps,
            seed=seed,
            start=state.start,
            views=views,
            workers=state.workers,
            device=device,
            parts=accumulate,
        )
        for step, batch in state.through(stream):
            set_rates(torch_optimizer, optimizer, step, total=steps, batch_size=batch_size)
            terms = state.take_step(step, losses, *_parts(batch, model, accumulate))
            guard.check(step, terms["spread"])
            tau = momentum_at(step + 1, total=steps, base=momentum, rises=momentum_rises)
            update_targets(model.pairs, tau)
            for criterion in model.criteria:
                criterion.after_step(accumulate)
            probed = judge_on_the_way(c.backbone.online, step, due_probes) if state.lead else {}
            state.record(step, terms, probed, note=_note(terms, t))
        encoder = state.place_of("encoder.safetensors")
        if state.lead:
            save_encoder(encoder, c.backbone.online, size=seen_size)
    return Pretrained(encoder, steps, _last_means(state.log, steps, reads=state.lead))


def _tell_size(c: CStream, size: ImageSize, *, has_weights: bool) -> None:
    """Let both encoders know their size; ViTs that begin with weights keep their positions."""
    set_size(c, size)
    if not has_weights:
        fit_positions(c, size)


def _losses_on(
    device: torch.device,
    c: CStream,
    t: TStream | None,
    attention_weight: float,
    *,
    images: int,
    images_of_set: int,
) -> Losses:
    """The streams with their losses, ready to train on a device.

    Args:
        device: where they compute.
        c: the C-stream.
        t: the T-stream, or None.
        attention_weight: λ of Eq. 5.
        images: of which a loss is computed at a time, on all processes together.
        images_of_set: that are trained on.

    Raises:
        CareError: An objective does not take so many.
    """
    model = Losses(c, t, attention_weight).to(device).to(memory_format=torch.channels_last).train()
    synchronise(model)
    for criterion in model.criteria:
        criterion.check(images)
        criterion.check_set(images_of_set)
    return model


def _check_parts(steps: int, batch_size: int, accumulate: int) -> None:
    """Refuse what cannot be cut into equal parts of images that batch norm can take."""
    world = ranks.world()
    is_cut = accumulate >= 1 and batch_size % (world * accumulate) == 0
    if steps < 1 or not is_cut or batch_size // accumulate < 2:
        raise CareError(
            f"cannot cut {batch_size} images a step into {world} processes × {accumulate} equal "
            "parts; wanted a multiple, at least 2 images a step and part, for batch norm, and "
            f"1 step, not {steps}"
        )


def _trained_parameters(model: Losses) -> Iterator[tuple[str, nn.Parameter]]:
    """What gradients train, by dotted name."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter


def _fit_threads(views: Sequence[View]) -> bool:
    """Whether threads can divide the views: there are some, and all are crops."""
    return len(views) > 1 and all(view.patch is None for view in views)


def _parts(batch: Batch, model: Losses, count: int) -> list[tuple[list[Tensor], Tensor]]:
    """Views in the model's number format and memory layout, cut into parts of a batch.

    With each part are the numbers of its images.
    """
    dtype = next(model.parameters()).dtype
    views = [_laid_out(view, dtype).chunk(count) for view in batch]
    samples = batch.samples.chunk(count)
    return [([view[part] for view in views], samples[part]) for part in range(count)]


def _laid_out(view: Tensor, dtype: torch.dtype) -> Tensor:
    """A view in a number format, channels last; patches become so where they are one batch."""
    if view.ndim == IMAGE_AXES:
        return view.to(dtype, memory_format=torch.channels_last)
    return view.to(dtype)


def _note(terms: Mapping[str, float], t: TStream | None) -> str:
    """The losses as they are shown beside the progress."""
    form = "C-stream {cnn:.3f} spread {spread:.2f}"
    if t is not None:
        streams = "C-stream {cnn:.3f} T-stream {transformer:.3f}"
        form = f"{streams} attention {{attention:.5f}} spread {{spread:.2f}}"
    return form.format(**terms)


def _last_means(log: Path, steps: int, *, reads: bool) -> dict[str, float]:
    """Means over the last tenth of the logged steps, the same for all processes.

    Args:
        log: the ``losses.jsonl`` of the process that writes.
        steps: length of the run.
        reads: whether this process is that one; the others hear from it.
    """
    rows = []
    if reads:
        lines = log.read_text().splitlines()[-max(steps // 10, 1) :]
        rows = [json.loads(line) for line in lines]
    means = [sum(row[name] for row in rows) / len(rows) if rows else -torch.inf for name in TERMS]
    return dict(zip(TERMS, ranks.max_over_ranks(*means), strict=True))


def _network_settings(
    c: CStream,
    t: TStream | None,
    precisions: StreamPrecisions,
) -> dict[str, str | None]:
    """What of the streams decides the result, beside the initial weights."""
    t_stream = attention = None
    if t is not None:
        t_stream = f"{t.objective} detach={t.detach}"
        transformer = t.backbone.online
        if isinstance(transformer, Transformer):  # weights of another attention are another network
            attention = f"{transformer.heads} heads of {transformer.dim}"
    return {
        "encoder": getattr(c.backbone.online, "name", ""),
        "objective": repr(c.objective),
        "t_stream": t_stream,
        "attention": attention,
        "precision": precisions.c,
        "t_precision": precisions.t,
    }


def _rare_settings(init_digest: str | None, *, momentum_rises: bool) -> dict[str, str | bool]:
    """Settings that are recorded only where they are not the default: older runs have none."""
    rare: dict[str, str | bool] = {}
    if init_digest is not None:
        rare["init"] = init_digest
    if not momentum_rises:
        rare["momentum_rises"] = False
    return rare
