"""`care evaluate`: an encoder, all but its detector beside the same network randomly initialised."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.tables import Json, Seed, show_results

app = typer.Typer(help="Judge an encoder: kNN, linear, few labels (each beside random initialisation), detection.", no_args_is_help=True)

Encoder = Annotated[str, typer.Argument(metavar="ENCODER", help="A run, a .safetensors file, or random:NAME.")]
Train = Annotated[str, typer.Option(help="Shard set with the labels to learn from.")]
Val = Annotated[str, typer.Option(help="Shard set to classify.")]
Size = Annotated[int | None, typer.Option(min=16, help="Side of the crops, pixels; default: the run's.")]
Precision = Annotated[Literal["bf16", "fp16", "fp32"] | None, typer.Option(help="Default: what the device computes natively.")]
Device = Annotated[Literal["cuda", "cpu"] | None, typer.Option(help="Default: cuda where there is one.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that decode images.")]


@app.command()
def knn(
    encoder: Encoder, train: Train, val: Val, size: Size = None,
    k: Annotated[int, typer.Option(min=1, help="Neighbours.")] = 20,
    temperature: Annotated[float, typer.Option(min=1e-3, help="Of the votes' weights.")] = 0.07,
    workers: Workers = 0, seed: Seed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """Weighted nearest neighbours on frozen features; nothing is trained.

    Example: care evaluate knn demo --train demo/train --val demo/val
    """
    from care.evaluate import knn as judge

    _evaluate("kNN", encoder, train, val, size, seed, as_json, _frozen(partial(judge, k=k, temperature=temperature), workers))


@app.command()
def linear(
    encoder: Encoder, train: Train, val: Val, size: Size = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the features.")] = 80,
    workers: Workers = 0, seed: Seed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """One linear layer on cached frozen features of centre crops; the learning rate is chosen on a fifth of train.

    Example: care evaluate linear random:resnet18 --train demo/train --val demo/val --size 64
    """
    from care.evaluate import linear as judge

    score = _frozen(lambda *both: judge(*both, epochs=epochs, seed=seed).accuracy, workers)
    _evaluate("linear", encoder, train, val, size, seed, as_json, score)


@app.command()
def finetune(
    encoder: Encoder, train: Train, val: Val,
    fraction: Annotated[float | None, typer.Option(help="Share of every class's labels to learn from.")] = None,
    names: Annotated[str | None, typer.Option("--list", help="Text file with the names of the images to learn from instead.")] = None,
    size: Size = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the labelled images.")] = 20,
    batch_size: Annotated[int, typer.Option(min=2, help="Images a step.")] = 256,
    lr: Annotated[list[float] | None, typer.Option(help="Learning rate of the encoder for 256 images; several are tried.")] = None,
    head_lr: Annotated[
        list[float] | None, typer.Option(help="That of the head, one for each --lr; default: 0.02, 5 and 0.01, 0.2.")] = None,
    workers: Workers = 0, seed: Seed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """Few labels: the whole network fine-tuned on a part of train; learning rates are chosen on a fifth of that part.

    Example: care evaluate finetune demo --train demo/train --val demo/val --fraction 0.1 --batch-size 32
    """
    import shards
    from care.evaluate import finetune as judge
    from care.evaluate import listed, stratified
    from care.evaluate.finetune import RATES
    from shards.progress import console

    if (fraction is None) == (names is None):
        raise typer.BadParameter("give one of the two, such as --fraction 0.1", param_hint="--fraction or --list")
    if fraction is not None and not 0 < fraction <= 1:
        raise typer.BadParameter(f"{fraction} is no share above 0 and at most 1", param_hint="--fraction")
    if len(lr or []) != len(head_lr or []):
        raise typer.BadParameter("give one --head-lr for each --lr", param_hint="--lr, --head-lr")
    rates = tuple(zip(lr, head_lr, strict=True)) if lr and head_lr else RATES
    data = shards.open(train)
    rows, missing = (stratified(data.labels, fraction, seed=seed), []) if fraction is not None else listed(data, str(names))
    if missing:
        console.print(f"[yellow]{len(missing):,} names of {names} are not in {train}, such as {missing[0]}", soft_wrap=True)

    task = f"{100 * fraction:g} % of the labels" if fraction is not None else f"labels of {Path(str(names)).name}"
    tuned = partial(judge, rows=rows, rates=rates, epochs=epochs, batch_size=batch_size, seed=seed, workers=workers)
    _evaluate(task, encoder, train, val, size, seed, as_json, lambda *given, size: tuned(*given, size=size).accuracy)


@app.command()
def detect(
    encoder: Encoder,
    train: Annotated[str, typer.Option(help="COCO JSON, or a list of a VOC devkit (ImageSets/Main/….txt).")],
    val: Annotated[str, typer.Option(help="The same, to be scored.")],
    out: Annotated[str | None, typer.Option(help="Run directory; by default detect-ENCODER.")] = None,
    size: Annotated[int, typer.Option(min=32, help="Short side of the images, pixels.")] = 800,
    iterations: Annotated[int, typer.Option(min=1, help="Training steps.")] = 24_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step.")] = 16,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate for 16 images.")] = 0.02,
    warmup: Annotated[int, typer.Option(min=0, help="Iterations of linear warm-up.")] = 100,
    proposals: Annotated[int, typer.Option(min=1, help="Boxes an image handed to the second stage.")] = 1000,
    channels: Annotated[int, typer.Option(min=8, help="Of the feature pyramid.")] = 256,
    hidden: Annotated[int, typer.Option(min=8, help="Width of the box head.")] = 1024,
    anchor_scale: Annotated[float, typer.Option(min=0.5, help="Side of the anchors over their level's stride.")] = 8,
    precision: Precision = None, device: Device = None, workers: Workers = 0,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Iterations between checkpoints.")] = 500,
    seed: Seed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """Faster R-CNN with a feature pyramid on the encoder, everything trained; interrupted, the same command continues.

    Example: care evaluate detect demo --train VOC2007/ImageSets/Main/trainval.txt --val VOC2007/ImageSets/Main/test.txt
    """
    from care.evaluate import detect as judge
    from care.train import load_encoder
    from shards import boxes, storage
    from shards.progress import console

    known = boxes.load(train)
    asked = boxes.load(val, classes=known.classes)
    for data in (known, asked):
        for reason, rejected in data.rejects.items():
            console.print(f"[yellow]{data.path}: {len(rejected):,} left out, {reason}, such as {rejected[0]}", soft_wrap=True)
    folder = Path(out or "detect-" + re.sub(r"[^\w.]+", "-", encoder).strip("-"))
    done = judge(
        load_encoder(encoder, seed=seed), known, asked, folder, size=size, iterations=iterations, batch_size=batch_size, lr=lr,
        warmup=warmup, proposals=proposals, anchor_scale=anchor_scale, channels=channels, hidden=hidden, seed=seed,
        precision=precision, device=device, workers=workers, checkpoint_every=checkpoint_every,
    )  # fmt: skip
    rows: list[dict[str, Any]] = [{"task": "detection", "encoder": encoder, "size": size, "iterations": iterations, **done._asdict()}]
    storage.write_json(folder / "results.json", {"title": f"Faster R-CNN from {encoder}", "evaluations": rows})
    show_results(rows, rows if as_json else None)


def _frozen(judge: Callable[..., Any], workers: int) -> Callable[..., Any]:
    from care.evaluate import extract

    return lambda network, *sets, size: judge(*(extract(network, data, size=size, workers=workers) for data in sets))


def _evaluate(task: str, source: str, train: str, val: str, size: int | None, seed: int, as_json: bool, score: Callable[..., Any]) -> None:
    import torch

    import shards
    from care.evaluate.features import same_classes
    from care.train import load_encoder

    known, asked = shards.open(train), shards.open(val)
    same_classes(known, asked)
    encoder = load_encoder(source, seed=seed)
    side, baseline = size or encoder.size, f"random:{encoder.name}"
    networks = {source: encoder} if source == baseline else {source: encoder, baseline: load_encoder(baseline, seed=seed)}
    rows = []
    for name, network in networks.items():
        network.to("cuda" if torch.cuda.is_available() else "cpu")
        rows.append({"task": task, "encoder": name, "size": side, **score(network, known, asked, size=side)._asdict()})
    show_results(rows, rows if as_json else None)
