"""`care evaluate`: an encoder beside the same network randomly initialised."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from flows.tables import Json, Seed, show_accuracies

if TYPE_CHECKING:
    from care.evaluate import Accuracy, Features

app = typer.Typer(help="Judge an encoder by its frozen features, beside the same network randomly initialised.", no_args_is_help=True)

Encoder = Annotated[str, typer.Argument(metavar="ENCODER", help="A run, a .safetensors file, or random:NAME.", show_default=False)]
Train = Annotated[str, typer.Option(help="Shard set with the labels to learn from.", show_default=False)]
Val = Annotated[str, typer.Option(help="Shard set to classify.", show_default=False)]
Size = Annotated[int | None, typer.Option(min=16, help="Side of the crops, pixels; default: the run's.", show_default=False)]
Workers = Annotated[int, typer.Option(min=0, help="Processes that decode images.")]


@app.command()
def knn(
    encoder: Encoder,
    train: Train,
    val: Val,
    size: Size = None,
    k: Annotated[int, typer.Option(min=1, help="Neighbours.")] = 20,
    temperature: Annotated[float, typer.Option(min=1e-3, help="Of the votes' weights.")] = 0.07,
    workers: Workers = 0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Weighted nearest neighbours on frozen features; nothing is trained.

    Example: care evaluate knn demo --train demo/train --val demo/val
    """
    from care.evaluate import knn as judge

    _evaluate("kNN", encoder, train, val, size, workers, seed, as_json, lambda a, b: judge(a, b, k=k, temperature=temperature))


@app.command()
def linear(
    encoder: Encoder,
    train: Train,
    val: Val,
    size: Size = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the features.")] = 80,
    workers: Workers = 0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """One linear layer on cached frozen features of centre crops; the learning rate is chosen on a fifth of train.

    Example: care evaluate linear random:resnet18 --train demo/train --val demo/val --size 64
    """
    from care.evaluate import linear as judge

    _evaluate("linear", encoder, train, val, size, workers, seed, as_json, lambda a, b: judge(a, b, epochs=epochs, seed=seed).accuracy)


def _evaluate(
    task: str, source: str, train: str, val: str, size: int | None, workers: int, seed: int, as_json: bool,
    judge: "Callable[[Features, Features], Accuracy]",
) -> None:  # fmt: skip
    import torch

    import shards
    from care.evaluate.features import extract, same_classes
    from care.train import load_encoder

    known, asked = shards.open(train), shards.open(val)
    same_classes(known, asked)
    encoder = load_encoder(source, seed=seed)
    side, baseline = size or encoder.size, f"random:{encoder.name}"
    networks = {source: encoder} if source == baseline else {source: encoder, baseline: load_encoder(baseline, seed=seed)}
    rows = []
    for name, network in networks.items():
        network.to("cuda" if torch.cuda.is_available() else "cpu")
        features = [extract(network, data, size=side, workers=workers) for data in (known, asked)]
        rows.append({"task": task, "encoder": name, "size": side, **judge(*features)._asdict()})
    show_accuracies(rows, rows if as_json else None)
