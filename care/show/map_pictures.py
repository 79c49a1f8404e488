"""Where encoders look at images, side by side in one colour scale: a sheet, and a file for each."""

import re
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Annotated, NamedTuple
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from care.attention import Transformer
from care.encoded import evaluating, refuse_bands
from care.encoders import Encoder
from care.errors import CareError
from care.evaluate.attention_maps import attention_map, class_map
from care.evaluate.class_probe import ClassProbe
from care.evaluate.features import device_of
from care.evaluate.images import centre_crop
from care.evaluate.transformer_maps import Attending, transformer_map
from care.show.map_sheet import SCALE, draw_sheet
from care.show.maps import KINDS, caption_of, cropped_pixels, overlays, picture_size
from care.train.photometrics import normalize
from shards.bounds import PositiveFloat, PositiveInt, Range
from shards.image_size import ImageSize
from shards.progress import warn
from shards.some_images import NamedImage


class Network(NamedTuple):
    """What is looked through.

    Attributes:
        encoder: on any device.
        transformer: of its run's T-stream on the same device, or None.
        probe: a classifier of its features there, or None.
    """

    encoder: Encoder
    transformer: Transformer | None = None
    probe: ClassProbe | None = None


class MapPictures(NamedTuple):
    """Pictures of maps.

    Attributes:
        sheet: all of them as a PNG, a row for each encoder and kind of map.
        files: each as a PNG, by a name such as ``runs-r50/01-cat.png``.
        caption: how they are read.
        rows: names of the rows below the images.
    """

    sheet: bytes
    files: dict[str, bytes]
    caption: str
    rows: list[str]


class _Row(NamedTuple):
    """A row of maps.

    Attributes:
        name: beside it.
        maps: of each image.
        words: below each picture, or nothing.
        about: how they came about.
    """

    name: str
    maps: Float[Tensor, "b h w"]
    words: list[str]
    about: str


def draw_maps(  # noqa: PLR0913 (keywords; the options of a command)
    networks: Mapping[str, Network],
    images: Sequence[NamedImage],
    *,
    size: ImageSize | None = None,
    kind: tuple[str, ...] = ("grad-cam",),
    stage: str | None = None,
    class_name: str | None = None,
    block: PositiveInt | None = None,
    head: PositiveInt | None = None,
    query: tuple[float, ...] | None = None,
    scale: PositiveFloat = SCALE,
    cell: Annotated[int, Range(32)] = 160,
) -> MapPictures:
    """Draw where encoders look at images, side by side and in one colour scale.

    Args:
        networks: by the name that is shown beside their rows.
        images: one at least.
        size: of the centre crops that the encoders see, pixels, or height and width such as 96x192;
            by default that of the first encoder's training.
        kind: of the maps, with commas between several: grad-cam (of a score without labels),
            eigen-cam, norm (of the activations), class (Grad-CAM of a class, with --train) or
            t-stream (what the transformer of a run attends to).
        stage: of the encoder whose map is looked at, such as layer3; by default the last.
        class_name: whose Grad-CAM the maps of the kind class are; by default the class that the
            probe predicts of each image.
        block: of the T-stream's transformer, from 1 on; by default the last.
        head: of that block's attention, from 1 on; by default the mean over all.
        query: place from which the T-stream looks, parts of the image's width and height such as
            0.5,0.5; by default the mean over all places.
        scale: value of a map that is red; 1 is the average pixel, blue is 0.
        cell: shorter side of a picture, pixels.

    Raises:
        CareError: A kind of map, a stage, a block, a head or a class is not there, no network has
            what a kind is of, or one takes images of other bands.
    """
    unknown = [name for name in kind if name not in KINDS]
    if unknown or not kind:
        raise CareError(f"wanted kinds of maps among {', '.join(KINDS)}, got {','.join(unknown)!r}")
    attending = _attending(block, head, query)
    size = size or next(iter(networks.values())).encoder.size
    pixels = normalize(cropped_pixels([named.image for named in images], size))
    for network in networks.values():
        refuse_bands(pixels.shape[1], network.encoder)
    shown = picture_size(size, cell)
    # of four bands the first three are to be seen
    crops = [centre_crop(named.image, shown).convert("RGB") for named in images]
    rows: dict[str, list[Image.Image]] = {"image": crops}
    captions = dict[str, list[str]]()
    abouts = list[str]()
    for one_kind in dict.fromkeys(kind):
        made = [*_rows_of_kind(networks, pixels, one_kind, stage, class_name, attending)]
        if not made:
            raise CareError(_missing(one_kind))
        for row in made:
            name = f"{row.name} {one_kind}" if len({*kind}) > 1 else row.name
            rows[name] = overlays(crops, row.maps.cpu(), scale=scale)
            captions[name] = row.words
            abouts.append(row.about)
    return MapPictures(
        draw_sheet(rows, scale=scale, captions={name: w for name, w in captions.items() if w}),
        _files(rows, images),
        caption_of(abouts, scale=scale),
        [name for name in rows if name != "image"],
    )


def _rows_of_kind(
    networks: Mapping[str, Network],
    pixels: Float[Tensor, "b _ h w"],
    kind: str,
    stage: str | None,
    class_name: str | None,
    attending: Attending,
) -> Iterator[_Row]:
    """The maps of a kind of all networks that have some; the others are told."""
    words = KINDS[kind]
    where = stage or "the last stage"
    for name, network in networks.items():
        encoder = network.encoder
        batch = pixels.to(device_of(encoder))
        if kind == "t-stream":
            if network.transformer is None:
                warn(f"{name} has no T-stream, and no row of what one attends to")
                continue
            about = words.format(attention=attending.describe(network.transformer))
            maps = transformer_map(encoder, network.transformer, batch, attending)
            yield _Row(name, maps, [], about)
        elif kind == "class":
            if network.probe is not None:
                yield _class_row(name, encoder, network.probe, batch, stage, class_name)
        else:
            maps = attention_map(encoder, batch, kind=kind, stage=stage)  # type: ignore[arg-type]
            yield _Row(name, maps, [], words.format(stage=where))


def _class_row(
    name: str,
    encoder: Encoder,
    probe: ClassProbe,
    batch: Float[Tensor, "b _ h w"],
    stage: str | None,
    class_name: str | None,
) -> _Row:
    """The Grad-CAM of a class, or of what is predicted of each image."""
    with evaluating(encoder), torch.no_grad():
        labels = probe.predict(encoder(batch).features).tolist()
    if class_name is not None:
        labels = [probe.number_of(class_name)] * len(batch)
    maps = class_map(encoder, batch, probe.weights[labels], stage=stage)
    about = KINDS["class"].format(stage=stage or "the last stage")
    return _Row(name, maps, [probe.classes[label] for label in labels], about)


def _attending(block: int | None, head: int | None, query: tuple[float, ...] | None) -> Attending:
    """What of a T-stream is looked at.

    Raises:
        CareError: The query is no place.
    """
    if query is None:
        return Attending(block, head)
    if len(query) != 2:
        raise CareError(f"wanted a place such as 0.5,0.5, got {','.join(map(str, query))}")
    x, y = query
    return Attending(block, head, (x, y))


def _missing(kind: str) -> str:
    """What to do where no network has what a kind of map is of."""
    if kind == "class":
        return "wanted labelled images to learn a class from; give --train SET"
    return (
        "none of these encoders has a T-stream; wanted a run of care pretrain with both streams, "
        "which has its transformer in its checkpoints"
    )


def _files(
    rows: Mapping[str, Sequence[Image.Image]], images: Sequence[NamedImage]
) -> dict[str, bytes]:
    """Every picture as a PNG, by the row's name as a folder and the image's as a file."""
    files = dict[str, bytes]()
    for row, pictures in rows.items():
        for number, (picture, named) in enumerate(zip(pictures, images, strict=True), start=1):
            data = BytesIO()
            picture.save(data, "PNG")
            stem = named.name.rpartition(".")[0] or named.name
            files[f"{_file_name(row)}/{number:02d}-{_file_name(stem)}.png"] = data.getvalue()
    return files


def _file_name(text: str) -> str:
    """A text in letters that a file may have."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.")[-80:] or "encoder"
