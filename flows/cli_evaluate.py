"""`care evaluate`: one or more encoders by a protocol; its options are those of the function in ``care.evaluate``."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import shards
from care.evaluate import Evaluation, detect, finetune, knn, linear
from care.train.launch import joined, torchrun
from flows.tables import Json, show_results
from flows.tasks import annotated, judged
from shards.options import command

app = typer.Typer(
    help="Judge encoders: kNN, linear, few labels, detection; random:NAME and supervised:NAME are baselines.", no_args_is_help=True,
    pretty_exceptions_enable=False, add_completion=False, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
_given = list[str]()  # the arguments as they were typed, for the processes that are started with them


def _add(verb: Callable[..., Evaluation], default: int, example: str) -> None:
    kind = "COCO JSON, VOC list (ImageSets/Main/….txt), or shard set of one" if verb is detect else "Shard set with labels"

    def run(
        encoder: Annotated[list[str], typer.Argument(metavar="ENCODER…", help="Runs, weights files, random:NAME, supervised:NAME.")],
        train: Annotated[str, typer.Option(help=f"{kind}, to learn from.")],
        val: Annotated[str, typer.Option(help=f"{kind}, to be scored.")],
        out: Annotated[str, typer.Option(help="Directory for results, runs and features.")] = "evaluations",
        trials: Annotated[int, typer.Option(min=1, help="Seeds; their mean and deviation are told.")] = default,
        nproc: Annotated[int, typer.Option(min=1, help="Processes that train a detector together, such as one a GPU.")] = 1,
        as_json: Json = False, **settings: Any,
    ) -> None:  # fmt: skip
        def start(folder: Path, seed: int) -> None:
            overrides = ("--seed", str(seed), "--trials", "1", "--nproc", "1")
            torchrun(folder, nproc, ["evaluate", *_given, *overrides], module="flows.cli")

        if nproc > 1 and (len(encoder) > 1 or verb is not detect):
            raise typer.BadParameter("several processes train one detector at a time", param_hint="--nproc")
        with joined():
            both = annotated(train, val) if verb is detect else (shards.open(train), shards.open(val))
            rows = [judged(verb, source, both, out, trials=trials, start=start if nproc > 1 else None, **settings) for source in encoder]
            if "TORCHELASTIC_RUN_ID" not in os.environ:  # else whoever started the processes shows them
                show_results(rows, rows if as_json else None)

    command(app, verb, run, example, skip=("cache", "rows"), names={"names": "--list"})


_VOC = "--train VOC2007/ImageSets/Main/trainval.txt --val VOC2007/ImageSets/Main/test.txt"
_add(knn, 1, "care evaluate knn demo random:resnet18-small-half --train demo/train --val demo/val")
_add(linear, 1, "care evaluate linear runs/r50 supervised:resnet50 --train sets/train --val sets/val")
_add(finetune, 3, "care evaluate finetune demo --train demo/train --val demo/val --fraction 0.1 --batch-size 32")
_add(detect, 1, f"care evaluate detect runs/r50 {_VOC}")


def main(arguments: list[str]) -> None:
    """Parse and run; errors are raised."""
    _given[:] = arguments
    app(arguments, prog_name="care evaluate")
