"""Pre-training: both streams, or the C-stream alone, by one process or by several."""

import json
import os
from typing import Any
import torch
import care
import shards
from care.train import VIEWS, View
from care.train import pretrain as pretrain_streams
from care.train.launch import process_group, torchrun
from flows.result import Result
from flows.works.outputs import outputs
from flows.works.timing import timing

POSITIONS: dict[str, type[care.NoPosition]] = {
    "none": care.NoPosition,
    "sin-cos": care.SinCosPosition,
    "absolute": care.AbsolutePosition,
    "relative": care.RelativePosition,
}
OBJECTIVES: dict[str, type[care.Objective]] = {
    "byol": care.BYOL,
    "simsiam": care.SimSiam,
    "simclr": care.SimCLR,
    "moco-v3": care.MoCoV3,
    "barlow-twins": care.BarlowTwins,
}


def pretrain(
    out: str,
    *,
    train: str,
    encoder: str,
    size: int,
    hidden: int,
    steps: int,
    views: Result | None = None,
    t_stream: bool = True,
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
        size: side of the views, pixels.
        hidden: hidden width of projectors and predictors.
        steps: length of the training.
        views: fields of ``care.train.View`` that differ from the paper's.
        t_stream: whether there is a T-stream.
        blocks: its attention blocks.
        position: its encoding of positions, a name in ``POSITIONS``.
        zero_gamma: each of its blocks starts as its shortcut.
        detach: its gradient ends at the encoder.
        objective: of the C-stream, a name in ``OBJECTIVES``.
        seed: of weights, order and views.
        nproc: training processes; 0: one a GPU.
        **settings: those of ``care.train.pretrain``.

    Returns:
        Digest and files of the encoder, its last losses, and how long it took on what.
    """
    nproc = nproc or torch.cuda.device_count() or 1
    network: Result = {"encoder": encoder, "size": size, "seed": seed}
    t_shape: Result = {"blocks": blocks, "zero_gamma": zero_gamma, "detach": detach}
    if nproc > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        inputs = network | t_shape | {"train": train, "hidden": hidden, "steps": steps}
        inputs |= {"position": position, "objective": objective, "views": views}
        inputs |= {"t_stream": t_stream, "nproc": nproc} | settings
        torchrun(out, nproc, [json.dumps(["pretrain", out, inputs])], module="flows.child")
    # what those processes have trained is only loaded here, and told
    with process_group(out):
        c, t = care.streams_for(
            **network,
            **t_shape,
            position=POSITIONS[position],
            objective=OBJECTIVES[objective](hidden=hidden),
        )
        trained = pretrain_streams(
            shards.open(train),
            out,
            c,
            t if t_stream else None,
            size=size,
            steps=steps,
            views=_both_views(views or {}),
            seed=seed,
            **settings,
        )
    files = outputs(out, "encoder.safetensors", "losses.jsonl")
    return {
        "digest": files["encoder.safetensors"]["sha256"],
        "outputs": files,
        "text": f"{encoder} at {size} px, {steps:,} steps of {settings['batch_size']} images",
        "losses": trained.losses,
        "timing": timing(out)._asdict(),
    }


def _both_views(changes: Result) -> tuple[View, View]:
    """The paper's distributions of the two views with some fields changed in both."""
    fields: Result = {
        name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()
    }
    first, second = VIEWS
    return first._replace(**fields), second._replace(**fields)
