"""`care evaluate`: one or more encoders judged by a protocol, whose options are its function's."""

import re
from typing import Annotated, Any
import typer
from care.train.encoder_source import with_branch
from care.train.load import is_foreign
from flows import records
from flows.cli.evaluate_options import (
    Columns,
    EncoderSources,
    NetworkKey,
    PixelDeviation,
    PixelMean,
    Processes,
    ResultsFolder,
    Trials,
)
from flows.cli.options import Json, add_command, new_app
from flows.cli.tables import show_results
from flows.cpu_hours import hours_on_cpu, options_for_cpu
from flows.evaluations import ABOUT, JUDGED, EvaluationKind
from flows.result import Result
from flows.sizes import common_sizes
from flows.verbs import evaluation_of, has_encoders_size, learns, places_of
from shards.progress import say, warn

app = new_app(ABOUT, no_args_is_help=True)
# what the data of an evaluation may be, by the names of the inputs by which they are found
_DATA: dict[tuple[str, ...] | None, str] = {
    (): "Shard set with labels",
    None: "Shard set, with labels or without",
    ("image_root",): "COCO JSON, VOC list (ImageSets/Main/….txt), or shard set of one",
    ("columns", "image_root"): "Table of images and classes, COCO JSON, VOC list"
    " (ImageSets/Main/….txt), or shard set of one",
}


def _add(line: EvaluationKind) -> None:
    """Add the command of an evaluation."""
    evaluation = evaluation_of(line.kind)
    reads_labels = learns(line.kind) or places_of(line.kind)
    images = line.data or _DATA[tuple(sorted(places_of(line.kind))) if reads_labels else None]
    of_tables = "; of a table also a shard set" if "columns" in places_of(line.kind) else ""

    def run(  # noqa: PLR0913 (the options of a command)
        encoder: EncoderSources,
        *,
        train: Annotated[str, typer.Option(help=f"{images}, to learn from.")] = "",
        val: Annotated[str, typer.Option(help=f"{images}, to be scored.")],
        out: ResultsFolder = "evaluations",
        trials: Trials = line.trials,
        nproc: Processes = 1,
        image_root: Annotated[
            str | None,
            typer.Option(
                help="Folder of the images of COCO JSONs, or of the folders train2017, val2017, …,"
                f" where they are not found around the lists{of_tables}."
            ),
        ] = None,
        columns: Columns = None,
        key: NetworkKey = None,
        mean: PixelMean = None,
        std: PixelDeviation = None,
        as_json: Json = False,
        **settings: Any,
    ) -> None:
        """Judge the encoders and show their rows."""
        pixels = {"mean": _numbers(mean, "--mean"), "std": _numbers(std, "--std")}
        if (mean is None) != (std is None):
            raise typer.BadParameter("give both or none of them", param_hint="--mean, --std")
        inputs = {"verb": line.kind, "val": val, "trials": trials}
        if train:
            inputs["train"] = train
        inputs |= {name: value for name, value in settings.items() if value is not None}
        if image_root is not None:
            inputs["image_root"] = image_root
        if columns is not None:
            inputs["columns"] = [name.strip() for name in columns.split(",")]
        # neither decides the result
        inputs |= {"cache": f"{out}/features", "nproc": nproc}
        sources = _with_key(encoder, key) if key else encoder
        rows = _judge(sources, out, inputs, pixels if mean else {})
        if train.rstrip("/") == val.rstrip("/"):
            warn(
                f"train and val are both {train}: an encoder is judged on what it was shown the"
                " answers of; care shards build SRC SETS --val-share 0.1 holds some of every class"
                " out"
            )
        show_results(rows, as_json)

    add_command(
        app,
        evaluation,
        run,
        f"care evaluate {line.kind} {line.example}",
        skip=line.hidden_parameters() | _hidden_options(line),
        required=["train"],
        names={"names": "--list"},
    )


def _hidden_options(line: EvaluationKind) -> set[str]:
    """Options of ``run`` that an evaluation has no use for."""
    hidden = {"image_root", "columns"} - places_of(line.kind)
    if not line.by_processes:
        hidden.add("nproc")
    if not learns(line.kind):
        hidden.add("train")
    return hidden


def _with_key(sources: list[str], key: str) -> list[str]:
    """Sources of encoders, those in other people's files with the network that is wanted there.

    Raises:
        typer.BadParameter: No encoder is in such a file.
    """
    foreign = [source for source in sources if is_foreign(source)]
    if not foreign:
        raise typer.BadParameter(
            f"wanted a file of other people with several networks, got {', '.join(sources)}; the "
            "target of a run is RUN:target",
            param_hint="--key",
        )
    return [with_branch(source, key) if source in foreign else source for source in sources]


def _numbers(text: str | None, option: str) -> list[float]:
    """The numbers of an option, none where it is not given.

    Raises:
        typer.BadParameter: They are none.
    """
    try:
        return [float(number) for number in text.split(",")] if text else []
    except ValueError:
        raise typer.BadParameter(
            f"wanted three numbers such as 0.5,0.5,0.5, got {text!r}", param_hint=option
        ) from None


def _judge(
    sources: list[str], out: str, inputs: Result, pixels: dict[str, list[float]]
) -> list[Result]:
    """Judge encoders in this process, each as a stage of its own.

    Args:
        sources: of the encoders.
        out: folder of the stages, path or URL.
        inputs: of all of them.
        pixels: mean and deviation that other people's files expect, or nothing.

    Returns:
        The rows of their results; what is finished is only looked up.
    """
    rows: list[Result] = []
    hours = hours_on_cpu(inputs["verb"], inputs)
    sizes = [inputs.get("size") for _ in sources]
    if "size" not in inputs and has_encoders_size(inputs["verb"]):
        sizes = common_sizes(sources)
    for source, size in zip(sources, sizes, strict=True):
        name = _stage_name(inputs["verb"], source)
        of_encoder: Result = {"encoder": source} | ({"size": size} if size else {})
        if pixels and is_foreign(source):
            of_encoder |= pixels
        stage = records.key_stage(out, name, "judge", inputs | of_encoder)
        if hours and records.finished_result(stage) is None:
            suits = f"care evaluate {inputs['verb']} … {options_for_cpu(inputs['verb'])}"
            warn(f"{hours}; what suits one: {suits}. Ctrl-C stops and saves")
            hours = None
        if len(sources) > 1:
            # whose progress it is that follows
            say(f"{inputs['verb']} of {source}")
        rows += records.finish(stage)["rows"]
    return rows


def _stage_name(kind: str, source: str) -> str:
    """How the stage that judges an encoder is called: by both, in letters that a file may have."""
    plain_source = re.sub(r"[^\w.]+", "-", source).strip("-")
    return f"{kind}-{plain_source}"


for _line in JUDGED:
    _add(_line)
