"""Pre-training: both streams, or the C-stream alone, by one process or by several."""

import json
import os
from typing import Any
import torch
import care
import shards
from care.objectives.by_name import objective_for
from care.positions import Position
from care.sequential import SequentialEncoder, sequential_stream
from care.train import VIEWS, View, ranks
from care.train import pretrain as pretrain_streams
from care.train.launch import process_group, torchrun
from care.train.recipes import make_optimizer
from care.train.weights import save_encoder
from care.vit import VITS
from flows.flatten import gathered
from flows.result import Result
from flows.works.outputs import outputs
from flows.works.timing import timing
from shards.image_size import ImageSize

POSITIONS: dict[str, type[Position]] = {
    "none": care.NoPosition,
    "sin-cos": care.SinCosPosition,
    "absolute": care.AbsolutePosition,
    "relative": care.RelativePosition,
}


def pretrain(  # noqa: PLR0913 (the inputs of a stage)
    out: str,
    *,
    train: str,
    encoder: str,
    size: ImageSize,
    hidden: int,
    steps: int,
    views: Result | list[Result] | None = None,
    optimizer: Result | None = None,
    t_stream: bool = True,
    design: str = "parallel",
    blocks: int = 5,
    position: str = "relative",
    zero_gamma: bool = True,
    detach: bool = False,
    objective: str = "byol",
    seed: int = 0,
    nproc: int = 1,
    **settings: Any,
) -> Result:
    """Both streams, or the C-stream alone, trained on a set.

    Args:
        out: run directory, path or URL.
        train: shard set.
        encoder: a name for ``care.build_encoder``.
        size: of the views, pixels.
        hidden: hidden width of projectors and predictors.
        steps: length of the training.
        views: fields of ``care.train.View`` that differ from the paper's, or all views, each by its
            fields.
        optimizer: its name in ``care.train.optimizers.OPTIMIZERS`` and fields, of which ``lr``,
            ``warmup`` and ``weight_decay`` are settings; by default plain SGD.
        t_stream: whether there is a T-stream.
        design: "parallel", or "sequential" for the transformer behind the encoder in one stream.
        blocks: its attention blocks.
        position: its encoding of positions, a name in ``POSITIONS``.
        zero_gamma: each of its blocks starts as its shortcut.
        detach: its gradient ends at the encoder.
        objective: of the C-stream, a name in ``care.objectives.by_name.OBJECTIVES``.
        seed: of weights, order and views.
        nproc: training processes; 0: one a GPU.
        **settings: those of ``care.train.pretrain``, such as ``init``.

    Returns:
        Digest and files of the encoder, its last losses, and how long it took on what.
    """
    nproc = nproc or torch.cuda.device_count() or 1
    shape: Result = {"encoder": encoder, "size": size, "seed": seed}
    shape |= {"blocks": blocks, "zero_gamma": zero_gamma}
    if nproc > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        inputs = shape | {"train": train, "hidden": hidden, "steps": steps, "views": views}
        inputs |= {"t_stream": t_stream, "design": design, "detach": detach, "nproc": nproc}
        inputs |= {"position": position, "objective": objective, "optimizer": optimizer}
        inputs |= settings
        torchrun(out, nproc, [json.dumps(["pretrain", out, inputs])], module="flows.child")
    # what those processes have trained is only loaded here, and told
    with process_group(out):
        shape["position"] = POSITIONS[position]
        data = shards.open(train)
        batch_size = settings["batch_size"]
        shape["objective"] = objective_for(
            objective, hidden=hidden, images=len(data), batch_size=batch_size
        )
        c, t = _streams(shape, t_stream=t_stream, detach=detach, design=design)
        keywords: dict[str, Any] = {
            "size": size,
            "steps": steps,
            "views": _views(views or {}),
            "seed": seed,
        }
        if optimizer is not None:
            numbers = {name: settings.pop(name) for name in ("lr", "warmup", "weight_decay")}
            keywords["optimizer"] = make_optimizer(optimizer | numbers)
        trained = pretrain_streams(
            data,
            out,
            c,
            t,
            **gathered(pretrain_streams, keywords | settings),
        )
        if isinstance(c.backbone.online, SequentialEncoder) and ranks.rank() == 0:
            # what was saved is the transformer, too; only the encoder is kept (Sec. 3.3)
            save_encoder(trained.encoder, c.backbone.online.encoder, size=size)
    files = outputs(out, "encoder.safetensors", "losses.jsonl")
    return {
        "digest": files["encoder.safetensors"]["sha256"],
        "outputs": files,
        "text": f"{encoder} at {size} px, {steps:,} steps of {batch_size} images",
        "losses": trained.losses,
        "timing": timing(out)._asdict(),
    }


def _streams(
    shape: Result,
    *,
    t_stream: bool,
    detach: bool,
    design: str,
) -> tuple[care.CStream, care.TStream | None]:
    """The streams to train; ``shape`` are the keywords that both designs have."""
    if design == "sequential":
        return sequential_stream(**shape), None
    if shape["encoder"] in VITS and not t_stream:
        alone = {name: shape[name] for name in ("encoder", "seed", "objective")}
        return care.c_stream_for(**alone), None
    c, t = care.streams_for(**shape, detach=detach)
    return c, t if t_stream else None


def _views(content: Result | list[Result]) -> tuple[View, ...]:
    """Distributions of views as JSON has them.

    Args:
        content: fields that are changed in both of the paper's, or the fields of each view.
    """
    if isinstance(content, list):
        return tuple(View(**_with_tuples(fields)) for fields in content)
    changes = _with_tuples(content)
    first, second = VIEWS
    return first._replace(**changes), second._replace(**changes)


def _with_tuples(fields: Result) -> Result:
    """Fields with tuples where JSON has lists."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
