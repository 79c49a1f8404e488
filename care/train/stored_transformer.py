"""The transformer of a run's T-stream, which only its checkpoints have."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from torch import Tensor
from care.attention import Transformer
from care.encoders import Encoder
from care.errors import CareError
from care.positions import AbsolutePosition, Position, RelativePosition
from care.train.encoder_source import parse_source
from care.train.load import checkpoint_of, load_encoder
from care.train.weights import load_exactly
from shards import storage

# where models have it: of the T-stream, of the sequential design; by the role of the network
_PLACES = {
    "": ("t.backbone.online.", "c.backbone.online.transformer."),
    "online": ("t.backbone.online.", "c.backbone.online.transformer."),
    "target": ("t.backbone.target.", "c.backbone.target.transformer."),
}
_HEADS = re.compile(r"(\d+) heads of (\d+)")


class StreamNetworks(NamedTuple):
    """The networks of a run that see an image one after the other.

    Attributes:
        encoder: whose tapped map the transformer is for.
        transformer: of the T-stream.
    """

    encoder: Encoder
    transformer: Transformer


def load_stream(
    source: str | Path, *, position: type[Position] | None = None
) -> StreamNetworks | None:
    """Load encoder and transformer of a run: in eval mode, on the CPU.

    Args:
        source: path or URL of a run of ``care pretrain``; ``RUN:target`` for the networks that
            follow those that gradients trained.
        position: encoding of the positions, of a run whose encoding has no weights.

    Returns:
        Both networks, or None where there is no transformer: of a file, of what others trained, of
        a run of the C-stream alone.

    Raises:
        CareError: The run has no checkpoint, or does not tell its positions and none are named.
    """
    wanted = parse_source(source)
    if not storage.locate(wanted.place).is_dir() or wanted.branch not in _PLACES:
        return None
    with checkpoint_of(wanted.place) as checkpoint:
        state = checkpoint.tensors("model")
        heads = _HEADS.fullmatch(str(checkpoint.manifest["settings"].get("attention")))
    for prefix in _PLACES[wanted.branch]:
        tensors = {
            name.removeprefix(prefix): tensor
            for name, tensor in state.items()
            if name.startswith(prefix)
        }
        if "blocks.0.attention.qkv.weight" in tensors:
            dim = int(heads[2]) if heads else None
            transformer = _build(tensors, position, dim)
            load_exactly(transformer, tensors, source=wanted.place)
            return StreamNetworks(load_encoder(source), transformer.eval())
    return None


def _build(
    tensors: Mapping[str, Tensor], position: type[Position] | None, dim: int | None
) -> Transformer:
    """A transformer as the shapes of its weights tell it.

    Args:
        tensors: its state.
        position: encoding of the positions, where it has no weights.
        dim: channels of a head as the run has recorded them, or None.

    Raises:
        CareError: Nothing tells the positions, or the channels of a head.
    """
    place = "blocks.0.attention.position."
    tables = {name.removeprefix(place): t for name, t in tensors.items() if name.startswith(place)}
    kind = position
    map_size = (1, 1)
    if "rows" in tables:
        kind = RelativePosition
        map_size = ((len(tables["rows"]) + 1) // 2, (len(tables["columns"]) + 1) // 2)
    elif "height" in tables:
        kind = AbsolutePosition
        map_size = (len(tables["height"]), len(tables["width"]))
    for table in tables.values():
        dim = table.shape[1]
    attended = tensors["blocks.0.attention.qkv.weight"].shape[0] // 3
    if kind is None or dim is None:
        raise CareError(
            "the attention of this run has no learned positions, and which others it has, or none, "
            "its checkpoint does not say; load it in Python, by care.train.load_stream with "
            "position=care.NoPosition or care.SinCosPosition"
        )
    blocks = {name.split(".")[1] for name in tensors}
    return Transformer(
        tensors["blocks.0.reduce.0.weight"].shape[1],
        tensors["blocks.0.expand.2.weight"].shape[0],
        map_size=map_size,
        blocks=len(blocks),
        heads=attended // dim,
        dim=dim,
        position=kind,
    )
