"""What `care pretrain` says beside its progress: the batch, the hours, and what comes next."""

import os
from collections.abc import Mapping
from typing import Any
import typer
import shards
from care import CStream, TStream
from care.train import ranks
from care.train.batch_size import PAPERS, default_batch_size, suitable_batch_size
from care.train.devices import torch_device
from care.train.forecast import describe_duration, forecast_seconds, is_worth_a_forecast
from care.train.mirror import recorded_settings
from shards import storage
from shards.progress import say, warn

# s: of a longer training it is said beforehand how long it will take
LONG = 3600
# images: of fewer little is learned that an untrained network has not
FEW = 1000


def batch_size_for(
    data: shards.ShardSet, run: str, wanted: int | None, *, nproc: int, accumulate: int
) -> int:
    """The batch that is asked for, or else one that suits, which is said.

    Args:
        data: the set.
        run: run directory or URL, perhaps of a run that goes on.
        wanted: the batch that is asked for.
        nproc: processes on this machine.
        accumulate: parts in which each takes its slice.

    Raises:
        typer.BadParameter: The set cannot fill it, or the processes cannot divide it.
    """
    images = len(data)
    world = int(os.environ.get("WORLD_SIZE", nproc))
    parts = world * accumulate
    batch_size = wanted or default_batch_size(run, images, parts=parts)
    suitable = suitable_batch_size(images, parts=parts)
    if batch_size > images:
        fault = f"{batch_size} is more than the {images:,} images of {data.path}"
        if suitable <= images:
            fault += f"; leave it out for {suitable}, which suits them"
    elif batch_size % parts:
        fault = f"{batch_size} is no multiple of {world} processes × {accumulate} parts"
    else:
        if wanted is None and batch_size != PAPERS and "RANK" not in os.environ:
            say(f"{batch_size} images a step, for a set of {images:,} (the paper's are {PAPERS})")
        return batch_size
    raise typer.BadParameter(fault, param_hint="--batch-size")


def warn_of_few(images: int) -> None:
    """Say that a set is small for a training without labels, and what helps.

    Args:
        images: of the set.
    """
    if images < FEW and "RANK" not in os.environ:
        warn(
            f"{images:,} images are few to learn from without labels: more of their kind help, also"
            " without classes, and so does --init supervised:ENCODER, which starts from ImageNet's"
            " weights"
        )


def warn_of_hours(
    run: str,
    streams: tuple[CStream, TStream | None],
    settings: Mapping[str, Any],
    *,
    encoder: str,
    steps: int,
) -> None:
    """Say before a new training starts on a CPU that it will take hours, and what takes less.

    Args:
        run: run directory or URL; of one that goes on nothing is said.
        streams: that are trained.
        settings: options of the training.
        encoder: its name.
        steps: of the training.
    """
    batch_size, size = settings["batch_size"], settings["size"]
    images = steps * batch_size
    device = torch_device(settings["device"])
    is_new = ranks.world() == 1 and recorded_settings(run) is None
    if not is_new or not is_worth_a_forecast(device, images=images, size=size):
        return
    precision = settings["precision"]
    seconds = forecast_seconds(
        *streams, images=images, size=size, precision=precision, views=settings["views"]
    )
    if seconds >= LONG:
        warn(
            f"about {describe_duration(seconds)} on this CPU: {encoder} at {size} px, {steps:,}"
            f" steps of {batch_size} images; a GPU takes less, and so do a smaller network and"
            " fewer pixels, such as --encoder resnet18-small --size 64 --epochs 20. Ctrl-C stops"
            " and saves"
        )


def say_next(run: str, path: str, *, is_labelled: bool) -> None:
    """Say what a run that is trained is for.

    Args:
        run: run directory or URL.
        path: of the set that it was trained on.
        is_labelled: whether its images have classes to judge an encoder by.
    """
    if is_labelled:
        say(f"judge it: care evaluate knn {run} --train {path} --val {_set_beside(path)}")
    say(f"see its losses, settings and results: care report {run}")


def _set_beside(path: str) -> str:
    """The set to judge on that lies beside one to train on, as ``--val-share`` builds them.

    Args:
        path: of the set that is trained on; path or URL.

    Returns:
        Its place, or ``SET`` where there is none of that name.
    """
    folder, slash, name = path.rstrip("/").rpartition("/")
    val_set = f"{folder}{slash}val"
    if name == "val" or "index.json" not in storage.listing(val_set):
        return "SET"
    return val_set
