"""`care pretrain`, and what each process does that torchrun starts for it.

``torchrun … -m care.train`` is the same command for processes on many machines.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple
import torch
import typer
import shards
from care import CStream, Objective, TStream, c_stream_for, streams_for
from care.encoders import Encoder, build_encoder
from care.evaluate import knn, quality_probe
from care.evaluate.evaluation import comparable
from care.show.run_settings import COMMAND_FILE, kept_commands
from care.train import Pretrained, TimedProbe, pretrain
from care.train.checks import check_encoder, check_method, check_optimizer, check_processes
from care.train.growth import grows
from care.train.launch import process_group, torchrun
from care.train.mirror import recorded_settings
from care.train.probes import Probe
from care.train.recipes import warmup_of
from care.train.run_log import OnStep
from care.train.settings import PRETRAINING_SETTINGS, allowed_settings
from care.train.tensorboard import summary_writer, tensorboard_log
from care.vit import VITS
from flows.cli.options import Json, Seed, SetPath, add_command, new_app
from flows.cli.pretrain_hints import batch_size_for, say_next, warn_of_few, warn_of_hours
from flows.cli.pretrain_options import (
    AllowedChanges,
    EncoderName,
    Epochs,
    EpochsBetweenNeighbours,
    EpochsBetweenProbes,
    ImagesAStep,
    NeighboursSet,
    Processes,
    RunPath,
    TensorBoard,
    WarmupEpochs,
)
from flows.cli.pretrain_recipe import (
    MethodChoice,
    fitted_objective,
    settings_by_recipe,
    take_choice,
)
from flows.cli.tables import print_json
from flows.command import typed_command
from flows.exits import exit_on_failure
from flows.flatten import gathered
from shards import storage
from shards.image_size import ImageSize
from shards.once import listing_once

app = new_app(add_completion=False)


def main() -> None:
    """Entry point of a process that torchrun has started, or that was started without it."""
    with exit_on_failure():
        app(prog_name="python -m care.train")


@listing_once()
def _run(  # noqa: PLR0913 (the options of a command)
    path: SetPath,
    run: RunPath,
    encoder: EncoderName = "resnet50",
    epochs: Epochs = 100,
    warmup_epochs: WarmupEpochs = None,
    nproc: Processes = 1,
    allow_change: AllowedChanges = None,
    knn_every: EpochsBetweenNeighbours = 0,
    knn_val: NeighboursSet = None,
    probe: EpochsBetweenProbes = 0,
    tensorboard: TensorBoard = False,
    batch_size: ImagesAStep = None,
    seed: Seed = 0,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Pre-train in this process, or start the processes that do it together."""
    choice = take_choice(settings)
    _check_choice(encoder, choice)
    data = shards.open(path)
    batch_size = batch_size_for(
        data, run, batch_size, nproc=nproc, accumulate=settings["accumulate"]
    )
    warn_of_few(len(data))
    settings |= {"batch_size": batch_size, "seed": seed}
    objective = fitted_objective(
        choice, images=len(data), batch_size=batch_size, parts=settings["accumulate"]
    )
    size = settings["size"]
    if bool(knn_every) != bool(knn_val):
        raise typer.BadParameter("give both or none of them", param_hint="--knn-every, --knn-val")
    allowed_settings(allow_change or (), PRETRAINING_SETTINGS)
    check_processes(nproc, settings["device"])
    if tensorboard:
        summary_writer()  # where there is none, that is told now
    val = _probe_set(data, knn_val)
    length = _length_of(
        run,
        len(data),
        batch_size,
        epochs,
        warmup_epochs,
        default_warmup=warmup_of(choice.recipe, epochs),
    )
    settings |= settings_by_recipe(choice, length.warmup, size=size, encoder=encoder)
    if nproc > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        check_encoder(encoder, size=size, init=settings["init"])
        torchrun(run, nproc, _typed_arguments(), module="flows.cli.pretrain")
        return

    steps_per_epoch = len(data) // batch_size
    probes = [
        TimedProbe(_knn_probe(data, val, size), knn_every * steps_per_epoch),
        TimedProbe(quality_probe(data, size=size, seed=seed), probe * steps_per_epoch),
    ]
    with process_group(run), _listener(run, tensorboard=tensorboard) as listener:
        c, t = _streams(encoder, objective, size=size, seed=seed, t_stream=choice.t_stream)
        warn_of_hours(run, (c, t), settings, encoder=encoder, steps=length.steps)
        trained = pretrain(
            data,
            run,
            c,
            t,
            steps=length.steps,
            allow_change=[*(allow_change or ()), *length.changes],
            probes=probes,
            on_step=_with_command(run, listener),
            **gathered(pretrain, settings),
        )
        if os.environ.get("RANK", "0") == "0":
            _show(trained, as_json)
            if not as_json:
                say_next(run, path, is_labelled=len(data.classes) > 1)


def _check_choice(encoder: str, choice: MethodChoice) -> None:
    """Tell wrong names, and what does not go together, before anything else."""
    _ = choice.recipe
    with torch.random.fork_rng(devices=[]):
        build_encoder(encoder)
    check_method(encoder, choice.objective, t_stream=choice.t_stream)
    check_optimizer(choice.objective, choice.optimizer)


def _streams(
    encoder: str, objective: Objective, *, size: ImageSize, seed: int, t_stream: bool
) -> tuple[CStream, TStream | None]:
    """The streams to train, of which without a T-stream there is one."""
    if encoder in VITS and not t_stream:
        return c_stream_for(encoder, seed=seed, objective=objective), None
    # alone, too: the C-stream begins with equal weights
    c, t = streams_for(encoder, size=size, seed=seed, objective=objective)
    return c, t if t_stream else None


def _listener(run: str, *, tensorboard: bool) -> AbstractContextManager[OnStep | None]:
    """What is told of each step beside the logs."""
    return tensorboard_log(run) if tensorboard else nullcontext()


def _with_command(run: str, listener: OnStep | None) -> OnStep:
    """What is told of each step, which at the first adds the command to those of the run.

    Args:
        run: run directory or URL.
        listener: what else is told of each step.
    """
    command = typed_command(["pretrain", *_typed_arguments()], run)
    commands = kept_commands(run)
    is_kept = command in commands

    def on_step(step: int, numbers: Mapping[str, float]) -> None:
        nonlocal is_kept
        if not is_kept:
            storage.write_json(f"{run}/{COMMAND_FILE}", {"commands": [*commands, command]})
            is_kept = True
        if listener is not None:
            listener(step, numbers)

    return on_step


def _knn_probe(data: shards.ShardSet, val: shards.ShardSet, size: ImageSize) -> Probe:
    """What judges by nearest neighbours on the way."""

    def probe(network: Encoder) -> dict[str, float]:
        return {"knn": knn(network, data, val, size=size).measures["top1"]}

    return probe


def _probe_set(data: shards.ShardSet, knn_val: str | None) -> shards.ShardSet:
    """The set of the kNN evaluations on the way, of which one after hours would be refused."""
    val = shards.open(knn_val) if knn_val else data
    if knn_val and os.environ.get("RANK", "0") == "0":
        comparable(data, val)
    return val


class _Length(NamedTuple):
    """How long a run is to be.

    Attributes:
        steps: of all.
        warmup: of them, in which the learning rate rises.
        changes: what of an earlier call's settings is meant to differ.
    """

    steps: int
    warmup: int
    changes: list[str]


def _length_of(
    run: str,
    images: int,
    batch_size: int,
    epochs: int,
    warmup_epochs: float | None,
    *,
    default_warmup: float,
) -> _Length:
    """The length that is asked for; a run that is there keeps its warm-up.

    Args:
        run: directory or URL, new or of an earlier call.
        images: of the set.
        batch_size: images a step.
        epochs: passes over the set.
        warmup_epochs: by default the run's, or of a new one the recipe's.
        default_warmup: epochs of that.
    """
    steps_per_epoch = images // batch_size
    steps = epochs * steps_per_epoch
    before = recorded_settings(run) or {}
    changes = ["steps"] if grows(before, steps=steps, batch_size=batch_size) else []
    is_of_these_batches = "warmup" in before and before["batch_size"] == batch_size
    if warmup_epochs is None and is_of_these_batches:
        return _Length(steps, before["warmup"], changes)
    if warmup_epochs is None:
        warmup_epochs = default_warmup
    return _Length(steps, round(steps_per_epoch * warmup_epochs), changes)


def _show(trained: Pretrained, as_json: bool) -> None:
    """Print what a training left behind."""
    if as_json:
        print_json(trained._asdict() | {"encoder": str(trained.encoder)})
    else:
        steps = "1 step" if trained.steps == 1 else f"{trained.steps} steps"
        typer.echo(f"{steps} done, encoder: {trained.encoder}")


def _typed_arguments() -> list[str]:
    """The command line without the program, and without the command where it has one."""
    return sys.argv[2:] if sys.argv[1] == "pretrain" else sys.argv[1:]


add_command(
    app,
    pretrain,
    _run,
    "care pretrain sets/train runs/small --encoder resnet18 --size 96 --batch-size 256 --nproc 2",
    values=[MethodChoice],
    # those that ``_run`` gives
    skip=["steps", "warmup", "views", "probe_every", "probes", "on_step"],
    about="Pre-train an encoder by CARE: both streams together (Sec. 3.3) in the directory RUN, or"
    " by another objective, alone or beside the T-stream."
    "\n\nInterrupted, the same command continues from the last checkpoint. RUN gets"
    " encoder.safetensors, losses.jsonl (a line a step) and checkpoints/; docs/training.md has all."
    "\n\nBeside the progress stand the losses of both streams (Eqs. 1 and 3), the attention"
    " supervision (Eq. 4, unweighted) and the spread of the embeddings: 1 is healthy, 0 collapsed."
    "\n\nSeveral processes share every batch; their number changes nothing but rounding.",
)


if __name__ == "__main__":
    main()
