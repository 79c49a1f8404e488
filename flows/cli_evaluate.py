"""`care evaluate`: one or more encoders by a protocol; its options are those of the function in ``care.evaluate``."""

import re
from collections.abc import Callable
from typing import Annotated, Any
import typer
from care.evaluate import Evaluation, detect, finetune, knn, linear
from flows import records
from flows.tables import Json, Result, show_results
from shards.terminal import command

app = typer.Typer(
    help="Judge encoders: kNN, linear, few labels, detection; random:NAME and supervised:NAME are baselines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _add(verb: Callable[..., Evaluation], default: int, example: str) -> None:
    kind = (
        "COCO JSON, VOC list (ImageSets/Main/….txt), or shard set of one"
        if verb is detect
        else "Shard set with labels"
    )

    def run(
        encoder: Annotated[
            list[str],
            typer.Argument(
                metavar="ENCODER…", help="Runs, weights files, random:NAME, supervised:NAME."
            ),
        ],
        train: Annotated[str, typer.Option(help=f"{kind}, to learn from.")],
        val: Annotated[str, typer.Option(help=f"{kind}, to be scored.")],
        out: Annotated[
            str, typer.Option(help="Folder for results, runs and features, path or URL.")
        ] = "evaluations",
        trials: Annotated[
            int, typer.Option(min=1, help="Seeds; their mean and deviation are told.")
        ] = default,
        nproc: Annotated[
            int,
            typer.Option(
                min=1, help="Processes that train a detector together, such as one a GPU."
            ),
        ] = 1,
        as_json: Json = False,
        **settings: Any,
    ) -> None:
        if nproc > 1 and verb is not detect:
            raise typer.BadParameter("several processes train detectors only", param_hint="--nproc")
        rows, given = (
            list[Result](),
            {option: value for option, value in settings.items() if value is not None},
        )
        for source in encoder:
            name = "-".join((verb.__name__, re.sub(r"[^\w.]+", "-", source).strip("-")))
            inputs = {
                "verb": verb.__name__,
                "encoder": source,
                "train": train,
                "val": val,
                "trials": trials,
                **given,
            }
            one = records.stage(
                out, name, "judge", inputs | {"cache": f"{out}/features", "nproc": nproc}
            )
            rows += records.finish(one)["rows"]
        show_results(rows, rows if as_json else None)

    command(app, verb, run, example, skip=("cache", "rows"), names={"names": "--list"})


_VOC = "--train VOC2007/ImageSets/Main/trainval.txt --val VOC2007/ImageSets/Main/test.txt"
_add(
    knn,
    1,
    "care evaluate knn demo/pretrain random:resnet18-small-half --train demo/train --val demo/val",
)
_add(
    linear, 1, "care evaluate linear runs/r50 supervised:resnet50 --train sets/train --val sets/val"
)
_add(
    finetune,
    3,
    "care evaluate finetune demo/pretrain --train demo/train --val demo/val --fraction 0.1 --batch-size 32",
)
_add(detect, 1, f"care evaluate detect runs/r50 {_VOC}")
