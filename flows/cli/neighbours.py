"""`care neighbours`: what is nearest to images in an encoder's features, as a picture."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple
import numpy as np
import torch
import typer
import shards
from care.encoders import Encoder
from care.errors import CareError
from care.evaluate import extract
from care.evaluate.feature_reading import is_feature_file, read_features
from care.evaluate.features import frozen_features
from care.evaluate.images import centre_crop
from care.evaluate.neighbours import Neighbours, nearest
from care.show.neighbours import (
    Query,
    nearest_of_rows,
    neighbour_sheet,
    query_of,
    rows_of_keys,
    spread_rows,
)
from care.train.photometrics import normalize
from flows.cli.options import Json, Seed, form_parser, new_app
from flows.cli.tables import print_json
from flows.works.encoders import encoder_on_device
from shards import storage
from shards.bounds import TypedAs
from shards.image_size import ImageSize, typed_size
from shards.images import SUFFIXES, decode
from shards.pixels import PixelRule
from shards.sample_names import SampleNames

app = new_app()
_SIZE = TypedAs("PIXELS|HxW", typed_size)


class _Space(NamedTuple):
    """Images of a set in the features of an encoder.

    Attributes:
        data: the set.
        x: features of its images.
        encoder: what made them; None of a file of features.
        size: of the crops, pixels.
    """

    data: shards.ShardSet
    x: torch.Tensor
    encoder: Encoder | None
    size: ImageSize


@app.command(
    epilog="Example: care neighbours runs/r50 sets/val --out neighbours.png",
    no_args_is_help=True,
)
def neighbours(  # noqa: PLR0913 (the options of a command)
    source: Annotated[
        str,
        typer.Argument(
            metavar="ENCODER",
            help="Run, weights file, random:NAME, supervised:NAME, or a file of `care features`.",
        ),
    ],
    images: Annotated[
        str, typer.Argument(metavar="IMAGES", help="A shard set, or a folder of images.")
    ],
    queries: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[QUERIES]...",
            help="Names of images in the set, or image files; by default some of the set.",
        ),
    ] = None,
    out: Annotated[str, typer.Option(help="The PNG, path or URL.")] = "neighbours.png",
    k: Annotated[int, typer.Option(min=1, max=50, help="Neighbours of each image.")] = 8,
    count: Annotated[
        int, typer.Option(min=1, max=100, help="Images of the set, where none are named.")
    ] = 6,
    size: Annotated[
        Any,
        typer.Option(
            parser=form_parser(_SIZE),
            metavar=_SIZE.metavar,
            help="Of the crops: a side, or height and width; by default that of the training.",
        ),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Draw the nearest neighbours of images, by cosine of their features."""
    if Path(out).suffix.lower() != ".png":
        raise typer.BadParameter(f"wanted a file .png, got {out}", param_hint="--out")
    with _opened(images) as data:
        if len(data) < 2:
            raise CareError(f"{images} has one image; neighbours need others beside it")
        space = _space(source, data, size, seed)
        shown, nearby = _neighbours(space, queries or [], k, count)
        title = f"{source}: each image, and the nearest of {len(data):,} by cosine"
        storage.write_bytes(out, neighbour_sheet(data, shown, nearby, title=title))
        if as_json:
            print_json(_facts(out, data, shown, nearby))
        else:
            typer.echo(out)


@contextmanager
def _opened(images: str) -> Iterator[shards.ShardSet]:
    """A shard set, or one that is built of a folder for the length of the block."""
    if (storage.locate(images) / "index.json").is_file():
        yield shards.open(images)
        return
    with tempfile.TemporaryDirectory(prefix="care-") as near:
        shards.build(images, Path(near) / "set")
        yield shards.open(Path(near) / "set")


def _space(source: str, data: shards.ShardSet, size: ImageSize | None, seed: int) -> _Space:
    """Features of a set, computed or read.

    Raises:
        CareError: A file has those of other images.
    """
    if not is_feature_file(source):
        encoder = encoder_on_device(source, seed)
        side = size or encoder.size
        return _Space(data, extract(encoder, data, size=side).x, encoder, side)
    stored = read_features(source)
    try:
        rows = rows_of_keys(data, stored.keys)
    except KeyError as error:
        raise CareError(
            f"{source} has features of {error.args[0]!r}, which is not in {data.path}; give the set"
            " that they are of"
        ) from None
    if len(rows) != len(data):
        raise CareError(
            f"{source} has features of {len(rows):,} images, {data.path} has {len(data):,}; give"
            " the set that they are of"
        )
    x = torch.empty_like(stored.x)
    x[rows] = stored.x
    return _Space(data, x, None, size or 0)


def _neighbours(
    space: _Space, names: Sequence[str], k: int, count: int
) -> tuple[list[Query], Neighbours]:
    """Queries, all of them files or all of them of the set, with their neighbours."""
    data = space.data
    if names and all(_is_file(name) for name in names):
        files = [_read(name, data) for name in names]
        return files, nearest(_features(space, files), space.x, min(k, len(data)))
    rows = [_row(data, name) for name in names] or spread_rows(len(data), count)
    return [query_of(data, row) for row in rows], nearest_of_rows(space.x, rows, k)


def _is_file(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and storage.locate(name).is_file()


def _read(name: str, data: shards.ShardSet) -> Query:
    """An image file as the set would have it."""
    parts = dict[str, Any](data.index.pixels.rule)
    for part, value in parts.items():
        parts[part] = value if isinstance(value, str) else tuple(value)
    return Query(decode(storage.read_bytes(name), PixelRule(**parts)), Path(name).name)


def _features(space: _Space, queries: Sequence[Query]) -> torch.Tensor:
    """Features of images that are in no set.

    Raises:
        CareError: There is no encoder to compute them by.
    """
    if space.encoder is None:
        raise CareError(
            "wanted an encoder for images that are not in the set, got a file of features; name"
            " images of the set, or give the encoder"
        )
    rows = list[torch.Tensor]()
    for query in queries:
        crop = torch.from_numpy(np.array(centre_crop(query.image, space.size)))
        pixels = normalize(crop.permute(2, 0, 1)[None].float() / 255)
        rows.append(frozen_features(space.encoder.eval(), pixels, "fp32").cpu())
    return torch.cat(rows)


def _row(data: shards.ShardSet, name: str) -> int:
    """The number of the one image of a set that a name is of.

    Raises:
        CareError: There is none, or there are several.
    """
    rows = SampleNames(data).match(name).rows
    if len(rows) == 1:
        return rows[0]
    if rows:
        first, second = (data.keys[row] for row in rows[:2])
        raise CareError(
            f"{data.path} has {len(rows)} images that {name} may be, such as {first} and {second};"
            " write the folder before it"
        )
    raise CareError(
        f"{name} is neither an image file nor a name in {data.path}, which has {data.keys[0]}"
    )


def _facts(
    out: str, data: shards.ShardSet, queries: Sequence[Query], nearby: Neighbours
) -> dict[str, object]:
    """What the picture shows, for machines."""
    rows = []
    for number, query in enumerate(queries):
        keys = data.keys[nearby.rows[number].numpy()].tolist()
        cosines = nearby.cosines[number].tolist()
        rows.append({"image": query.name, "neighbours": keys, "cosines": cosines})
    return {"file": out, "queries": rows}
