"""``care pretrain``, and ``torchrun … -m care.train`` for processes on many machines."""

import os
import sys
from typing import Annotated, Any
import typer
import shards
from care import BYOL, streams_for
from care.encoders import ENCODERS
from care.evaluate import knn
from care.train import pretrain
from care.train.launch import process_group, torchrun
from shards.terminal import command, told

app = typer.Typer(
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _run(
    path: Annotated[
        str, typer.Argument(metavar="SET", help="A shard set: the DEST of `care shards build`.")
    ],
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Run directory or URL, new or of the same run.")
    ],
    encoder: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(ENCODERS)}, NAME:TAP, torchvision:MODEL:TAP or timm:MODEL:TAP."
        ),
    ] = "resnet50",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the set.")] = 100,
    warmup_epochs: Annotated[
        float | None, typer.Option(min=0, help="Default: 10, at most a tenth of the run.")
    ] = None,
    hidden: Annotated[
        int, typer.Option(min=1, help="Hidden width of projectors and predictors.")
    ] = 4096,
    nproc: Annotated[
        int, typer.Option(min=1, help="Training processes on this machine, such as one a GPU.")
    ] = 1,
    allow_change: Annotated[
        list[str] | None, typer.Option(help="A setting that may differ from the run's.")
    ] = None,
    knn_every: Annotated[
        int, typer.Option(min=0, help="Epochs between kNN evaluations on the way; 0: none.")
    ] = 0,
    knn_val: Annotated[
        str | None, typer.Option(help="Labelled set for them; SET has the neighbours.")
    ] = None,
    **settings: Any,
) -> None:
    data, size, batch_size, accumulate = (
        shards.open(path),
        settings["size"],
        settings["batch_size"],
        settings["accumulate"],
    )
    per_epoch = len(data) // batch_size
    wrong = (
        f"more than the {len(data)} images of {path}"
        if per_epoch == 0
        else f"no multiple of {nproc} processes × {accumulate} parts"
    )
    if per_epoch == 0 or batch_size % (nproc * accumulate):
        raise typer.BadParameter(f"{batch_size} is {wrong}", param_hint="--batch-size")
    if bool(knn_every) != bool(knn_val):
        raise typer.BadParameter("give both or none of them", param_hint="--knn-every, --knn-val")
    if nproc > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        torchrun(
            run, nproc, sys.argv[2:] if sys.argv[1] == "pretrain" else sys.argv[1:]
        )  # as they were typed
        return
    with process_group(run):
        asked = shards.open(knn_val) if knn_val else data
        c, t = streams_for(encoder, size=size, seed=settings["seed"], objective=BYOL(hidden=hidden))
        warmup = round(
            per_epoch * (min(10, epochs / 10) if warmup_epochs is None else warmup_epochs)
        )
        probe = lambda network: {"knn": knn(network, data, asked, size=size).measures["top1"]}  # noqa: E731
        done = pretrain(
            data,
            run,
            c,
            t,
            steps=epochs * per_epoch,
            warmup=warmup,
            allow_change=allow_change or (),
            probe=probe,
            probe_every=knn_every * per_epoch,
            **settings,
        )
        if os.environ.get("RANK", "0") == "0":
            typer.echo(f"{done.steps} steps done, encoder: {done.encoder}")


_OWN = (
    "steps",
    "warmup",
    "views",
    "allow_change",
    "probe",
    "probe_every",
)  # keywords that ``_run`` itself gives
command(
    app,
    pretrain,
    _run,
    "care pretrain sets/train runs/small --encoder resnet18 --size 96 --batch-size 256 --nproc 2",
    skip=_OWN,
)


if __name__ == "__main__":
    with told():
        app(prog_name="python -m care.train")
