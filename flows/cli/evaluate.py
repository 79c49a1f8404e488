"""`care evaluate`: one or more encoders judged by a protocol, whose options are its function's."""

import re
from collections.abc import Callable
from typing import Annotated, Any
import typer
from care.evaluate import Evaluation, detect, finetune, knn, linear
from flows import records
from flows.cli.options import Json, add_command, new_app
from flows.cli.tables import show_results
from flows.result import Result

app = new_app(
    "Judge encoders: kNN, linear, few labels, detection; random:NAME and supervised:NAME are"
    " baselines.",
    no_args_is_help=True,
)
_LABELLED = "Shard set with labels"
_ANNOTATED = "COCO JSON, VOC list (ImageSets/Main/….txt), or shard set of one"


def _add(
    evaluation: Callable[..., Evaluation],
    example: str,
    *,
    images: str = _LABELLED,
    default_trials: int = 1,
) -> None:
    """Add the command of an evaluation.

    Args:
        evaluation: a function of ``care.evaluate``.
        example: how the command is typed.
        images: what its sets are, for the help.
        default_trials: seeds, where none are asked for.
    """

    def run(
        encoder: Annotated[
            list[str],
            typer.Argument(
                metavar="ENCODER…", help="Runs, weights files, random:NAME, supervised:NAME."
            ),
        ],
        train: Annotated[str, typer.Option(help=f"{images}, to learn from.")],
        val: Annotated[str, typer.Option(help=f"{images}, to be scored.")],
        out: Annotated[
            str, typer.Option(help="Folder for results, runs and features, path or URL.")
        ] = "evaluations",
        trials: Annotated[
            int, typer.Option(min=1, help="Seeds; their mean and deviation are told.")
        ] = default_trials,
        nproc: Annotated[
            int,
            typer.Option(
                min=1, help="Processes that train a detector together, such as one a GPU."
            ),
        ] = 1,
        as_json: Json = False,
        **settings: Any,
    ) -> None:
        if nproc > 1 and evaluation is not detect:
            raise typer.BadParameter("several processes train detectors only", param_hint="--nproc")
        inputs = {"verb": evaluation.__name__, "train": train, "val": val, "trials": trials}
        inputs |= {name: value for name, value in settings.items() if value is not None}
        # neither decides the result
        inputs |= {"cache": f"{out}/features", "nproc": nproc}
        rows: list[Result] = []
        for source in encoder:
            stage = records.key_stage(
                out, _stage_name(evaluation, source), "judge", inputs | {"encoder": source}
            )
            rows += records.finish(stage)["rows"]
        show_results(rows, as_json)

    add_command(app, evaluation, run, example, skip=_hidden(evaluation), names={"names": "--list"})


def _hidden(evaluation: Callable[..., Evaluation]) -> list[str]:
    """Parameters of an evaluation that are no options of its command."""
    hidden = ["cache", "rows", "keep_every"]
    if evaluation is not detect:
        hidden.append("device")  # which is the encoder's
    return hidden


def _stage_name(evaluation: Callable[..., Evaluation], source: str) -> str:
    """How the stage that judges an encoder is called: by both, in letters that a file may have."""
    plain_source = re.sub(r"[^\w.]+", "-", source).strip("-")
    return f"{evaluation.__name__}-{plain_source}"


_add(
    knn,
    "care evaluate knn demo/pretrain random:resnet18-small-half --train demo/train --val demo/val",
)
_add(
    linear,
    "care evaluate linear runs/r50 supervised:resnet50 --train sets/train --val sets/val",
)
_add(
    finetune,
    "care evaluate finetune demo/pretrain --train demo/train --val demo/val --fraction 0.1"
    " --batch-size 32",
    default_trials=3,
)
_add(
    detect,
    "care evaluate detect runs/r50 --train VOC2007/ImageSets/Main/trainval.txt"
    " --val VOC2007/ImageSets/Main/test.txt",
    images=_ANNOTATED,
)
