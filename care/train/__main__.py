"""``care pretrain``, and ``torchrun … -m care.train`` for processes on many machines."""

import os
import sys
from typing import Annotated, Literal

import typer

import shards
from care import BYOL, CareError, streams_for
from care.encoders import ENCODERS, Encoder
from care.errors import Stopped
from care.train.launch import joined, refuse_again, torchrun
from care.train.loop import pretrain
from care.train.run import Precision

NAMES = f"{', '.join(ENCODERS)}; with another tap than layer3 NAME:TAP; any other CNN as torchvision:MODEL:TAP or timm:MODEL:TAP."

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
_given = list[str]()  # the arguments as they were typed, for the processes that are started with them


@app.command(no_args_is_help=True)
def command(
    path: Annotated[str, typer.Argument(metavar="SET", help="A shard set: the DEST of `care shards build`.")],
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run directory or URL, new or of the same run.")],
    encoder: Annotated[str, typer.Option(help=NAMES)] = "resnet50",
    size: Annotated[int, typer.Option(min=16, help="Side of the views, pixels.")] = 224,
    batch_size: Annotated[int, typer.Option(min=2, help="Images a step, on all processes together.")] = 1024,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the set.")] = 100,
    warmup_epochs: Annotated[float | None, typer.Option(min=0, help="Default: 10, at most a tenth of the run.")] = None,
    lr: Annotated[float, typer.Option(min=0, help="Base learning rate for 256 images.")] = 0.05,
    momentum: Annotated[float, typer.Option(min=0, max=1, help="First momentum coefficient of the targets.")] = 0.99,
    attention_weight: Annotated[float, typer.Option(min=0, help="Weight of the attention supervision (λ of Eq. 5).")] = 100,
    hidden: Annotated[int, typer.Option(min=1, help="Hidden width of projectors and predictors.")] = 4096,
    seed: Annotated[int, typer.Option(min=0, help="Fixes everything random.")] = 0,
    precision: Annotated[Precision | None, typer.Option(help="Default: what the device computes natively.")] = None,
    device: Annotated[Literal["cuda", "cpu"] | None, typer.Option(help="Default: cuda where there is one.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode images beside each training one.")] = 0,
    nproc: Annotated[int, typer.Option(min=1, help="Training processes on this machine, such as one a GPU.")] = 1,
    accumulate: Annotated[int, typer.Option(min=1, help="Parts in which each process takes its images, for less memory.")] = 1,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    keep_every: Annotated[int, typer.Option(min=0, help="Steps between checkpoints that stay for good; 0: the newest two.")] = 0,
    allow_change: Annotated[list[str] | None, typer.Option(help="A setting that may differ from the run's.")] = None,
    knn_every: Annotated[int, typer.Option(min=0, help="Epochs between kNN evaluations on the way; 0: none.")] = 0,
    knn_val: Annotated[str | None, typer.Option(help="Labelled set for them; SET has the neighbours.")] = None,
) -> None:
    """Pre-train an encoder by CARE; interrupted, the same command continues from the last checkpoint. Defaults are the paper's.

    Example: care pretrain sets/train runs/small --encoder resnet18 --size 96 --batch-size 256 --nproc 2
    """
    data = shards.open(path)
    per_epoch = len(data) // batch_size
    if per_epoch == 0:
        raise typer.BadParameter(f"{batch_size} is more than the {len(data)} images of {path}", param_hint="--batch-size")
    if batch_size % (nproc * accumulate):
        raise typer.BadParameter(f"{batch_size} is no multiple of {nproc} processes × {accumulate} parts", param_hint="--batch-size")
    if bool(knn_every) != bool(knn_val):
        raise typer.BadParameter("give both or none of them", param_hint="--knn-every, --knn-val")
    if nproc > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        torchrun(run, nproc, _given)
        return
    with joined():
        refuse_again(run)
        asked = shards.open(knn_val) if knn_val else None

        def knn_of(network: Encoder) -> dict[str, float]:
            from care.evaluate import extract, knn

            return {"knn": knn(extract(network, data, size=size), extract(network, asked or data, size=size)).top1}

        c, t = streams_for(encoder, size=size, seed=seed, objective=BYOL(hidden=hidden))
        done = pretrain(
            data, run, c, t, size=size, batch_size=batch_size, steps=epochs * per_epoch, lr=lr, momentum=momentum,
            warmup=round(per_epoch * (min(10, epochs / 10) if warmup_epochs is None else warmup_epochs)),
            attention_weight=attention_weight, seed=seed, precision=precision, device=device, workers=workers, accumulate=accumulate,
            checkpoint_every=checkpoint_every, keep_every=keep_every, allow_change=allow_change or (),
            probe=knn_of, probe_every=knn_every * per_epoch,
        )  # fmt: skip
        if os.environ.get("RANK", "0") == "0":
            typer.echo(f"{done.steps} steps done, encoder: {done.encoder}")


def main(arguments: list[str], prog: str = "python -m care.train") -> None:
    """Parse and run; errors are raised."""
    _given[:] = arguments
    app(arguments, prog_name=prog)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (CareError, shards.ShardError, OSError, Stopped) as error:
        print(f"{'stopped' if isinstance(error, Stopped) else 'error'}: {error}", file=sys.stderr)
        # torchrun takes any other code for a crash; it is asked to stop, and the record in the run directory says that it was
        sys.exit(0 if isinstance(error, Stopped) and "TORCHELASTIC_RUN_ID" in os.environ else 3 if isinstance(error, Stopped) else 1)
