"""Images with boxes around their objects, of COCO JSON, Pascal VOC devkits or shard sets.

Every box of an image that is there is kept, or rejected under a named reason. An image without
boxes is kept, too: it is background to learn from and a place for false alarms. A box that reaches
over the border is cut at it. Crowds (COCO) and difficult objects (VOC) are neither missed nor found
in an evaluation.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shards import images, reader, storage
from shards.contents import contents_of
from shards.errors import ShardError
from shards.misspelt import suggestion
from shards.pixel_report import PixelReport
from shards.pixel_rules import decide_rule
from shards.pixels import PixelRule
from shards.progress import warn
from shards.rejects import Reject, Rejection, describe, group_by_reason
from shards.sources import refuse_image_root
from shards.sources.annotated import read_annotations
from shards.sources.annotations import AnnotatedImage, AnnotatedObject, Annotations
from shards.sources.candidates import Candidate
from shards.sources.coco import parse_coco

# pixels; a thinner box has no area: float32 could not tell its sides apart
THIN = 1e-3
_NAMED = 6  # lists or folders that a message names
_NO_BOX = (math.nan,) * 4


class Picture(NamedTuple):
    """An image and its n boxes, all in pixels of the upright image.

    Attributes:
        path: path of its file; in a shard set, of the set and the name in its source.
        size: width and height.
        boxes: [n, 4]: left, top, right, bottom, the last two exclusive.
        labels: [n]: positions in the set's classes.
        difficult: [n]: VOC's, trained on but ignored by the metric.
        crowd: [n]: COCO's, not trained on and ignored by the metric.
        masks: [n]: COCO's segmentations as the file has them, polygons of 3 points and more or an
            RLE, [] where there is none.
    """

    path: Path
    size: tuple[int, int]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    masks: list[Any]

    @property
    def ignored(self) -> NDArray[np.bool_]:
        """[n]: neither missed nor found in an evaluation."""
        return self.difficult | self.crowd


class BoxSet(NamedTuple):
    """The annotated images of a list.

    Attributes:
        path: path of the list.
        pictures: the images that are there, in the order of the list.
        classes: the names of the classes.
        rejects: what was left out, by reason.
        digest: equal for equal images and boxes, be they files or in a shard set.
        voc: whether Pascal VOC's metric is due.
        shards: the set that the images are in, or None if they are files.
        samples: their numbers in that set.
        rule: how files become 8 bits and three channels.
        image_ids: what the list calls the pictures: COCO's numbers, or VOC's names.
        category_ids: COCO's numbers of the classes by name; of VOC the names.
    """

    path: Path
    pictures: list[Picture]
    classes: tuple[str, ...]
    rejects: dict[str, list[str]]
    digest: str
    voc: bool = False
    shards: reader.ShardSet | None = None
    samples: Sequence[int] = ()
    rule: PixelRule = PixelRule()
    image_ids: Sequence[int | str] = ()
    category_ids: Mapping[str, int | str] = MappingProxyType({})

    @property
    def pixels(self) -> PixelReport:
        """How its images became 8 bits of red, green and blue."""
        if self.shards is not None:
            return self.shards.index.pixels
        return PixelReport(self.rule.document())

    def image(self, number: int) -> Image.Image:
        """Decode a picture.

        Args:
            number: number of the picture in the list.

        Returns:
            The upright RGB image.

        Raises:
            ShardError: It cannot be read, does not decode, or is not of the annotated size.
        """
        picture = self.pictures[number]
        try:
            if self.shards is None:
                image = images.decode(storage.read_bytes(picture.path), self.rule)
            else:
                image = self.shards.image(self.samples[number])
        except (OSError, ShardError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ShardError(f"cannot read {picture.path}: {reason}") from error
        if image.size != picture.size:
            width, height = picture.size
            raise ShardError(
                f"{picture.path} has {image.width} × {image.height} pixels, its annotation says "
                f"{width} × {height}; correct one of them"
            )
        return image


def load(
    data: str | Path,
    *,
    classes: Sequence[str] | None = None,
    image_root: str | Path | None = None,
    annotations: Annotations | None = None,
) -> BoxSet:
    """The images and boxes that a list has.

    Args:
        data: a COCO JSON, a folder with such an ``annotations.json``, a VOC list such as
            ``VOC2007/ImageSets/Main/trainval.txt``, a folder of images and VOC's annotations, or a
            set built of one.
        classes: the names that count, in the order of their labels; boxes of others are rejected.
            By default COCO's categories by id, or all VOC names, sorted.
        image_root: the folder of a COCO JSON's images, where they are not found around it; a shard
            set has its own.
        annotations: what ``read_annotations`` gave of ``data``, so that it is not read again.

    Returns:
        The images with their boxes.

    Raises:
        ShardError: It is none of these, damaged, or none of its images is there.
    """
    path = storage.locate(data)
    shard_set = None
    if is_annotated_set(path):
        shard_set = reader.open(path)
        annotations = _annotations_of_set(shard_set, path)
    else:
        annotations = _annotations_of_list(path, data, image_root, annotations)
    if not annotations.images:
        rejects = annotations.rejects
        why = describe(group_by_reason(rejects))
        raise ShardError(
            f"no image that {annotations.path} lists is there "
            f"({len(rejects)} entries left out: {why}); check the layout"
        )
    names = tuple(dict.fromkeys(annotations.classes if classes is None else classes))
    labels = {name: number for number, name in enumerate(names)}
    pictures = list[Picture]()
    rejections = [*annotations.rejects]
    for image in annotations.images:
        picture, rejected_boxes = make_picture(image, labels)
        pictures.append(picture)
        rejections += rejected_boxes
    samples = list[int]()
    rule = PixelRule()
    if shard_set is None:
        rule = _pixel_rule(pictures)
        files = [_candidate(picture.path) for picture in pictures]
        contents = contents_of(files)
    else:
        samples = _sample_numbers(shard_set, annotations)
        contents = shard_set.index.samples["crc32"][samples].tolist()
    return BoxSet(
        path=annotations.path,
        pictures=pictures,
        classes=names,
        rejects=group_by_reason(rejections),
        digest=_digest(names, annotations.voc, pictures, contents),
        voc=annotations.voc,
        shards=shard_set,
        samples=samples,
        rule=rule,
        image_ids=[image.entry["id"] for image in annotations.images],
        category_ids={
            str(category["name"]): category["id"] for category in annotations.document["categories"]
        },
    )


def is_annotated_set(path: Path) -> bool:
    """Whether a folder is a shard set that was built of annotated images."""
    return all((path / name).is_file() for name in ("index.json", "annotations.json"))


def _pixel_rule(pictures: Sequence[Picture]) -> PixelRule:
    """The rule that a build would decide for the files of these pictures."""
    names = sorted(str(picture.path) for picture in pictures)
    candidates = [Candidate(name, name, size=0) for name in names]
    rule, notes = decide_rule(candidates)
    for note in notes:
        warn(note)
    return rule


def _annotations_of_set(shard_set: reader.ShardSet, path: Path) -> Annotations:
    """What a shard set keeps of the list that it was built of."""
    text = storage.read_bytes(path / "annotations.json")
    if hashlib.sha256(text).hexdigest() != shard_set.index.sha256.get("annotations.json"):
        raise ShardError(
            f"{path}/annotations.json is not the file that was written; "
            "copy the set again, or build it again"
        )
    return parse_coco(shard_set.path, json.loads(text))


def _annotations_of_list(
    path: Path,
    data: str | Path,
    image_root: str | Path | None,
    annotations: Annotations | None,
) -> Annotations:
    """What the list at ``path``, which the user calls ``data``, says, if it was not read before."""
    annotations = annotations or read_annotations(path, image_root=image_root)
    refuse_image_root(data, annotations, image_root)
    if annotations is not None and not annotations.is_labels:
        return annotations
    if annotations is not None:
        raise ShardError(
            f"wanted boxes, got categories without any in {annotations.path}; "
            "care shards build makes a set of classes of it, for kNN, linear and fine-tuning"
        )
    raise ShardError(
        f"wanted a COCO JSON or a VOC list (ImageSets/Main/train.txt) at {data}, "
        f"or shards of one; {_instead_of_a_list(path, data)}"
    )


def _instead_of_a_list(path: Path, data: str | Path) -> str:
    """What to do about a path without annotations, which the user calls ``data``."""
    lists = [str(name) for name in sorted(path.glob("**/ImageSets/Main/*.txt"))]
    if lists:
        return f"name one of its lists: {', '.join(lists[:_NAMED])}"
    if not path.is_dir():
        return f"check the path{suggestion(data)}"
    folders = [str(folder) for folder in sorted(path.iterdir()) if _is_annotated(folder)]
    if folders:
        return f"name one of its folders: {', '.join(folders[:_NAMED])}"
    return "there is a folder, but no annotations in it"


def _is_annotated(folder: Path) -> bool:
    """Whether a folder is a set with boxes, or has some form of annotations in it."""
    if not folder.is_dir():
        return False
    try:
        return is_annotated_set(folder) or read_annotations(folder) is not None
    except ShardError:
        return False


def make_picture(
    image: AnnotatedImage, labels: Mapping[str, int]
) -> tuple[Picture, list[Rejection]]:
    """The objects of an image as arrays, and those that cannot be used.

    Args:
        image: what the list says of the image.
        labels: numbers of the classes that count, by name.

    Returns:
        The image with its boxes, cut at its borders, and what was left out of them.
    """
    objects = list[AnnotatedObject]()
    boxes = list[list[float]]()
    rejects = list[Rejection]()
    for annotated in image.objects:
        category = annotated.category
        x, y, width, height = annotated.box or _NO_BOX
        sides = [x, y, x + width, y + height]
        clipped = _clip(sides, image.size)
        x_min, y_min, x_max, y_max = clipped
        if category in labels and min(width, height, x_max - x_min, y_max - y_min) >= THIN:
            objects.append(annotated)
            boxes.append(clipped)
            if annotated.mask_is_cut:
                rejects.append(Rejection(Reject.BAD_MASK, f"{image.path.name}: {category}"))
            continue
        reason = Reject.OUTSIDE if min(width, height) >= THIN else Reject.DEGENERATE
        if not annotated.box:
            reason = Reject.NO_BOX
        if category not in labels:
            reason = Reject.UNKNOWN_CATEGORY
        rejects.append(Rejection(reason, f"{image.path.name}: {category} {sides}"))
    picture = Picture(
        path=image.path,
        size=image.size,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array([labels[annotated.category] for annotated in objects], np.int64),
        difficult=np.array([annotated.difficult for annotated in objects], np.bool_),
        crowd=np.array([annotated.crowd for annotated in objects], np.bool_),
        masks=[annotated.mask for annotated in objects],
    )
    return picture, rejects


def _clip(sides: Sequence[float], size: tuple[int, int]) -> list[float]:
    """Left, top, right and bottom of a box, cut at the borders of an image.

    NaN stays NaN.
    """
    return [min(max(side, 0), limit) for side, limit in zip(sides, size * 2, strict=True)]


def _candidate(path: Path) -> Candidate:
    """An image file as what may be a sample."""
    return Candidate(str(path), path.name, size=path.stat().st_size)


def _sample_numbers(shard_set: reader.ShardSet, annotations: Annotations) -> list[int]:
    """Which samples of a set its annotated images are."""
    numbers = {key: number for number, key in enumerate(shard_set.keys)}
    return [numbers[image.entry["key"]] for image in annotations.images]


def _digest(
    classes: Sequence[str], voc: bool, pictures: Sequence[Picture], contents: Sequence[int]
) -> str:
    """A digest of images, by the names and contents of their files, and of their boxes."""
    digests = list[str]()
    # one by one: the text of all would fill the memory
    for picture, content in zip(pictures, contents, strict=True):
        row = [
            picture.path.name,
            content,
            picture.size,
            picture.boxes.tolist(),
            picture.labels.tolist(),
            picture.difficult.tolist(),
            picture.crowd.tolist(),
            picture.masks,
        ]
        digests.append(storage.digest(row))
    return storage.digest([list(classes), voc, *digests])
