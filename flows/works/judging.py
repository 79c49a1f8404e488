"""One evaluation of an encoder, by its name, over several seeds.

Which evaluation it is, an input says: only that one's code counts in the digest of the stage.
"""

import inspect
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
import torch
from care.encoders import Encoder
from care.evaluate.predictions import DECIMALS
from care.evaluate.resampling import rounded
from care.train import ranks
from care.train.launch import process_group, torchrun
from care.train.weights import digest_of
from flows.flatten import flat_parameters, gathered
from flows.result import Result
from flows.verbs import evaluation_of, load_data
from flows.works.encoders import encoder_on_device
from flows.works.outputs import outputs
from shards import storage
from shards.progress import warn


def judge(  # noqa: PLR0913 (the inputs of a stage)
    out: str,
    *,
    verb: str,
    encoder: str,
    train: str | None = None,
    val: str,
    called: str | None = None,
    cache: str | None = None,
    seed: int = 0,
    trials: int = 1,
    nproc: int = 1,
    image_root: str | None = None,
    columns: list[str] | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    **settings: Any,
) -> Result:
    """An encoder judged by an evaluation.

    Args:
        out: folder for ``results.json``, which has the row, and ``seed-N``, the runs.
        verb: the evaluation, a name in ``care.evaluate``.
        encoder: source of the encoder.
        train: data to learn from: a shard set with labels, annotated images, or a table; None of an
            evaluation that learns nothing.
        val: data to be scored on.
        called: what the row calls the encoder; by default its source.
        cache: folder with features of earlier, if the evaluation uses such.
        seed: the first one.
        trials: seeds, whose mean counts.
        nproc: processes that train together, where the evaluation is one that can; 0: one a GPU.
        image_root: the folder of the images of lists, where they are not around them.
        columns: the names of a table's columns.
        mean: of the pixels that others trained the encoder on, where that is not ImageNet's.
        std: their deviation.
        **settings: keywords of the evaluation.

    Returns:
        The row and the files.
    """
    places = {"image_root": image_root, "columns": columns}
    data = _load(verb, train, val, places)
    pixels = {"mean": mean, "std": std} if mean and std else {}
    network = encoder_on_device(encoder, seed, **{name: tuple(of) for name, of in pixels.items()})
    digests = {"encoder": digest_of(network)}
    digests |= {part: of_part.digest for part, of_part in data.items()}
    nproc = nproc or torch.cuda.device_count() or 1
    in_group = "TORCHELASTIC_RUN_ID" in os.environ
    places_of_run: Result = {"cache": cache, "source": encoder}
    parts = tuple(data.values())
    evaluation = _Trials(out, verb, network, parts, places_of_run, _with_tuples(settings))
    if nproc > 1 and not in_group:
        inputs: Result = {"verb": verb, "encoder": encoder, "train": train, "val": val}
        inputs |= {"nproc": nproc, **places, **pixels, **evaluation.settings}
        results = [_run_in_group(out, inputs | {"seed": seed + n}) for n in range(trials)]
    else:
        results = [evaluation.run(seed + number) for number in range(trials)]
    row = results[0] | {
        "encoder": called or encoder,
        "settings": evaluation.settings,
        "digests": digests,
        "seed": seed,
        "trials": trials,
    }
    if network.assumed:
        row["assumed"] = network.assumed
    row = _with_means(row, results)
    row["protocol"] += _left_out(data)
    row["versions"] = _versions()
    row = json.loads(json.dumps(row))  # tuples are lists there, as in what is read back
    if in_group:
        return dict(row)
    title = f"{row['task']}: {row['encoder']}"
    storage.write_json(f"{out}/results.json", {"title": title, "evaluations": [row]})
    text = ", ".join(f"{measure} {row[measure]:.1f}" for measure in results[0]["measures"])
    files = [name for result in results for name in result["files"]]
    return {"outputs": outputs(out, "results.json", *files), "rows": [row], "text": text}


@dataclass
class _Trials:
    """The runs of one evaluation; what the first one chooses, the others use.

    Attributes:
        out: folder of the stage, path or URL.
        verb: the evaluation.
        encoder: to judge.
        data: to learn from, if it learns, and to be scored on.
        places: where the features and the encoder are, for evaluations that take them.
        settings: keywords of the evaluation.
    """

    out: str
    verb: str
    encoder: Encoder
    data: tuple[Any, ...]
    places: Result
    settings: Result

    def run(self, seed: int) -> Result:
        """Judge with one seed, in this process or as one of a group."""
        run = f"{self.out}/seed-{seed}"
        evaluate = evaluation_of(self.verb)
        places = self.places | {"seed": seed, "run": run}
        accepted = inspect.signature(evaluate).parameters.keys() | flat_parameters(evaluate)
        arguments = {name: place for name, place in places.items() if name in accepted}
        keywords = gathered(evaluate, arguments | self.settings)
        with process_group(run):
            evaluation = evaluate(self.encoder, *self.data, **keywords)
            self.settings = self.settings | evaluation.chosen
            result: Result = evaluation._asdict()
            outcomes = result.pop("outcomes")
            files = outcomes.files() if outcomes else {}
            result["files"] = [f"seed-{seed}/{name}" for name in files]
            if ranks.rank() == 0:
                for name, content in files.items():
                    storage.write_bytes(f"{run}/{name}", content)
                storage.write_json(f"{run}/result.json", result)
        return result


def _load(verb: str, train: str | None, val: str, places: Mapping[str, Any]) -> dict[str, Any]:
    """The data of an evaluation by their part; those of val have the classes of train."""
    if train is None:
        return {"val": load_data(verb, val, **places)}
    train_data = load_data(verb, train, **places)
    val_data = load_data(verb, val, classes=train_data.classes, **places)
    return {"train": train_data, "val": val_data}


def _run_in_group(out: str, inputs: Result) -> Result:
    """Judge with one seed by several processes, each of which calls ``judge`` again."""
    run = f"{out}/seed-{inputs['seed']}"
    arguments = [json.dumps(["judge", out, inputs])]
    torchrun(run, inputs["nproc"], arguments, module="flows.child")
    return dict(storage.read_json(f"{run}/result.json"))


def _with_tuples(settings: Result) -> Result:
    """Settings from JSON, with tuples as the evaluations take them."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }


def _with_means(row: Result, results: Sequence[Result]) -> Result:
    """The row with each measure's mean over the trials, and its deviation where there are more."""
    row = {**row}
    row.pop("files")
    for measure in row.pop("measures"):
        values = [result["measures"][measure] for result in results]
        row[measure] = round(statistics.fmean(values), DECIMALS)
        if len(results) > 1:
            row[f"{measure}_std"] = round(statistics.stdev(values), DECIMALS)
    for part in ("by_class", "by_size"):
        means = _means([result[part] for result in results])
        row.pop(part)
        if means:
            row[part] = means
    # the trials are of the same images, and so of the same draws
    by_draw = zip(*(result["resampled"] for result in results), strict=True)
    row["resampled"] = rounded([statistics.fmean(figures) for figures in by_draw])
    return row


def _means(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the trials by name, which are the same in all."""
    return {
        name: round(statistics.fmean(trial[name] for trial in figures), DECIMALS)
        for name in figures[0]
    }


def _left_out(data: Mapping[str, Any]) -> str:
    """What the protocol says of what lists name and is left out, which is also told."""
    text = ""
    for part, of_part in data.items():
        # of a shard set the build has told it
        rejects = getattr(of_part, "rejects", {})
        for reason, names in rejects.items():
            text += f"; {len(names):,} left out of {part}: {reason}"
            warn(f"{of_part.path}: {len(names):,} left out, {reason}, such as {names[0]}")
    return text


def _versions() -> dict[str, str]:
    return {
        "care": version("care-ssl"),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
    }
