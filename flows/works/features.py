"""Features of both sets by an encoder, which several evaluations read."""

from functools import cache
import shards
from care.encoders import Encoder
from care.evaluate import extract
from flows.result import Result
from flows.works.encoders import encoder_on_device
from shards.image_size import ImageSize


def features(
    out: str,
    *,
    encoder: str,
    train: str,
    val: str,
    size: ImageSize,
    seed: int = 0,
    workers: int | None = None,
) -> Result:
    """Features of centre crops, a file a shard, for kNN and linear evaluation.

    Args:
        out: folder for them, path or URL.
        encoder: source of it.
        train: shard set.
        val: shard set.
        size: of the crops, pixels.
        seed: of an encoder that is initialised here.
        workers: processes that decode images; None: what is best here.
    """
    network = encoder_on_device(encoder, seed)
    for data in (train, val):
        extract(network, shards.open(data).labelled(), size=size, workers=workers, cache=out)
    return {"text": "features of centre crops"}


def extract_shard(out: str, inputs: Result, part: str, number: int) -> None:
    """The features of one shard: a piece of ``features``.

    Args:
        out: as for ``features``.
        inputs: of ``features``.
        part: "train" or "val".
        number: of the shard in that set.
    """
    encoder = _known_encoder(out, inputs["encoder"], inputs["seed"])
    data = shards.open(inputs[part]).labelled()
    # pieces are spread over the cores already
    extract(encoder, data, size=inputs["size"], cache=out, only=[number], workers=0)


@cache
def _known_encoder(_: str, source: str, seed: int) -> Encoder:
    """The encoder of a stage, by whose folder it is known: what lies at its path may change."""
    return encoder_on_device(source, seed)
