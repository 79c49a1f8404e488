"""Whether an encoder looks at objects: attention inside them, the pointing game, and one box."""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import pil_to_tensor
from care.attention import Transformer
from care.encoded import evaluating, refuse_bands
from care.encoders import Encoder
from care.errors import CareError
from care.evaluate.attention_maps import attention_map
from care.evaluate.evaluation import Evaluation
from care.evaluate.features import device_of
from care.evaluate.localisation import LEAST_IOU, TOLERANCE, discovered_box, finest_meaningful
from care.evaluate.object_figures import TOP_MASS, ObjectFigures, figures_of
from care.evaluate.objects import Framing, Objects, objects_of
from care.evaluate.predictions import as_csv, as_percent
from care.evaluate.resampling import resampled_mean
from care.evaluate.transformer_maps import Attending, transformer_map
from care.train.batches import load_examples
from care.train.loading import worker_count
from care.train.photometrics import normalize
from care.train.stored_transformer import load_stream
from shards.bounds import NonNegativeInt
from shards.boxes import BoxSet
from shards.image_size import ImageSize, Sides
from shards.progress import progress

# images that are encoded together, where they have one size
_BATCH = 64

Kind = Literal["grad-cam", "eigen-cam", "norm", "t-stream"]
# in words, of a stage
_NAMES = {
    "grad-cam": "label-free Grad-CAM",
    "eigen-cam": "EigenCAM",
    "norm": "norm of the activations",
}


class _Shown(NamedTuple):
    """Images that are encoded together.

    Attributes:
        keys: their names.
        images: normalised, on the CPU.
        objects: what is to be seen on each.
    """

    keys: list[str]
    images: Float[Tensor, "b 3 h w"]
    objects: list[Objects]


class _Framed(NamedTuple):
    """An image as it is shown, its values of 8 bits, with its name and what is to be seen on it."""

    key: str
    pixels: UInt8[Tensor, "3 h w"]
    objects: Objects


class _FramedImages(Dataset[_Framed]):
    """Annotated images by number, as they are shown.

    Args:
        data: of the images.
        framing: what of them is shown.
    """

    def __init__(self, data: BoxSet, framing: Framing) -> None:
        self.data = data
        self.framing = framing

    def __getitem__(self, number: int) -> _Framed:
        objects = objects_of(self.data, number, self.framing)
        image = self.framing.image(self.data.image(number))
        return _Framed(self.data.pictures[number].path.name, pil_to_tensor(image), objects)


class ObjectTable(NamedTuple):
    """The figures of every image, for a file.

    Attributes:
        keys: names of the images.
        figures: of each of them.
    """

    keys: tuple[str, ...]
    figures: ObjectFigures

    def files(self) -> dict[str, bytes]:
        """What the evaluation leaves of them: a table with a row for each image."""
        columns = [column.tolist() for column in self.figures]
        rows = zip(self.keys, *columns, strict=True)
        return {"attention.csv": as_csv(["key", *ObjectFigures._fields], rows)}


def attention(
    encoder: Encoder,
    val: BoxSet,
    *,
    size: ImageSize | None = None,
    kind: Kind = "grad-cam",
    stage: str | None = None,
    crop: bool = True,
    source: str | None = None,
    workers: NonNegativeInt | None = None,
) -> Evaluation:
    """Where an encoder looks, beside masks or boxes of the objects: nothing is learned.

    Protocol: of the map of each image, the share of its energy inside the objects; whether its
    maximum lies on an object, or at most 3 % of the image's longer side beside it (the pointing
    game); the Jaccard index of the objects and the pixels that hold the map's highest 60 %; and
    whether one box, which LOST discovers in the encoder's features, has an IoU of at least ½ with
    an object's (CorLoc). Objects are where their masks are, or else their boxes. An image without
    an object in what is shown is left out.

    Args:
        encoder: used on the device it is on, in eval mode; not changed.
        val: annotated images.
        size: of the crops, pixels, or height and width such as 96x192; by default that of the
            encoder's training.
        kind: which map; t-stream is what the transformer of a run's T-stream attends to, the last
            block's mean over heads and positions.
        stage: the map's, such as layer3; by default the last. CorLoc has a stage of its own, the
            deepest with 6 cells a side.
        crop: show centre crops, or whole images at their own size, as LOST does.
        source: where the encoder is from, for the transformer.
        workers: processes that decode images, by default what is best here.

    Returns:
        ``inside``, ``pointing``, ``jaccard`` and ``corloc``, means in per cent, each with what a
        map without preference would have.

    Raises:
        CareError: No image has an object, or the encoder has no such stage or transformer, or takes
            images of four bands.

    Source: Zhang et al. 2016 for the pointing game; Caron et al. 2021 (DINO) for the Jaccard index;
    Siméoni et al. 2021 (LOST) for the box.
    """
    refuse_bands(3, encoder)
    framing = Framing(size or encoder.size if crop else None)
    transformer = _transformer(source, encoder) if kind == "t-stream" else None
    parts = list[ObjectFigures]()
    keys = list[str]()
    masked = 0
    with progress("where the encoder looks", len(val.pictures)) as advance:
        for shown in _batches(val, framing, workers, device_of(encoder), advance):
            images = shown.images.to(device_of(encoder))
            if transformer is not None:
                maps = transformer_map(encoder, transformer, images)
            else:
                maps = attention_map(encoder, images, kind=kind, stage=stage)  # type: ignore[arg-type]
            boxes = _discover_boxes(encoder, images)
            parts.append(figures_of(maps.cpu(), boxes, shown.objects))
            keys += shown.keys
            masked += sum(objects.has_masks for objects in shown.objects)
    if not parts:
        raise CareError(f"no image of {val.path} shows an object: there is nothing to compare with")
    figures = ObjectFigures(*(torch.cat(column) for column in zip(*parts, strict=True)))
    looked_at = f"{_NAMES.get(kind)} of {stage or 'the last stage'}"
    if transformer is not None:
        looked_at = f"T-stream: {Attending().describe(transformer)}"
    size_in_words = f"centre crops of {framing.size} px" if crop else "whole images"
    objects_in_words = _describe_objects(masked, len(keys), len(val.pictures))
    return _record(
        ObjectTable(tuple(keys), figures), f"{looked_at}, {size_in_words}; {objects_in_words}"
    )


def _transformer(source: str | None, encoder: Encoder) -> Transformer:
    """The transformer of a run, on its encoder's device.

    Raises:
        CareError: There is none.
    """
    networks = load_stream(source) if source else None
    if networks is None:
        raise CareError(
            f"{source or 'this encoder'} has no T-stream; wanted a run of care pretrain with both "
            "streams, which has its transformer in its checkpoints"
        )
    return networks.transformer.to(device_of(encoder))


def _batches(
    val: BoxSet,
    framing: Framing,
    workers: int | None,
    device: torch.device,
    advance: Callable[[int, str], None],
) -> Iterator[_Shown]:
    """The images that show an object, in batches of one size.

    Args:
        val: annotated images.
        framing: what of them is shown.
        workers: processes that decode, by default what is best here.
        device: where the encoder computes.
        advance: is told how many images are done.
    """
    count = 1 if framing.size is None else _BATCH
    numbers = range(len(val.pictures))
    shown = [[*numbers[start : start + count]] for start in range(0, len(numbers), count)]
    workers = worker_count(workers, device, batches=len(shown))
    for batch in load_examples(_FramedImages(val, framing), shown, workers, collate_fn=list):
        images = [image for image in batch if len(image.objects.boxes)]
        if images:
            pixels = torch.stack([image.pixels for image in images])
            yield _Shown(
                [image.key for image in images],
                normalize(pixels.float() / 255),
                [image.objects for image in images],
            )
        advance(len(batch), "")


def _discover_boxes(encoder: Encoder, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "4"]]:
    """The box of each image by LOST."""
    size = Sides(*images.shape[2:])
    with evaluating(encoder), torch.no_grad():
        features = finest_meaningful(encoder.maps(images)).cpu()
    return [discovered_box(of_image, size) for of_image in features]


def _describe_objects(masked: int, shown: int, images: int) -> str:
    """What objects are told by, and how many images have some, in words."""
    text = f"objects of {masked:,} images by masks, of {shown - masked:,} by boxes"
    if masked == shown:
        text = f"objects of {shown:,} images by masks"
    elif not masked:
        text = f"objects of {shown:,} images by boxes"
    if images > shown:
        text += f"; {images - shown:,} images without an object in what is shown are left out"
    return text


def _record(table: ObjectTable, about: str) -> Evaluation:
    """The record of the figures of all images.

    Args:
        table: the figures.
        about: what was looked at, in words.
    """
    means = {
        name: as_percent(float(column.double().mean()))
        for name, column in table.figures._asdict().items()
    }
    protocol = (
        f"{about}. Inside: share of the map in the objects, {means['area']:.1f} % of the pixels; "
        f"pointing: maxima on an object or at most {100 * TOLERANCE:g} % of the longer side beside "
        f"it, {means['pointing_chance']:.1f} % of random points; Jaccard: objects and the map's "
        f"top {100 * TOP_MASS:g} %, {means['jaccard_chance']:.1f} % for random pixels; CorLoc: "
        f"LOST's box with an IoU of at least {LEAST_IOU:g}, {means['corloc_chance']:.1f} % for a "
        "box around all"
    )
    return Evaluation(
        task="attention on objects",
        protocol=protocol,
        measures=means,
        resampled=resampled_mean(table.figures.inside),
        outcomes=table,
    )
