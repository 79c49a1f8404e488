"""Images with boxes, of COCO JSON, VOC devkits or shard sets, parsed only here: each is kept, without boxes too, or rejected by name."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shards import images, reader, storage
from shards.errors import ShardError
from shards.rejects import Reject
from shards.sources import read_annotations
from shards.sources.annotations import AnnotatedObject
from shards.sources.coco import parse_coco

THIN = 1e-3  # pixels; a thinner box has no area: float32 could not tell its sides apart


class Picture(NamedTuple):
    """An image and its n boxes, all in pixels of the upright image."""

    path: Path  # of its file, or in a shard set of the set and the name in its source
    size: tuple[int, int]  # width and height
    boxes: NDArray[np.float32]  # [n, 4]: left, top, right, bottom, the last two exclusive
    labels: NDArray[np.int64]  # [n]: positions in the set's classes
    difficult: NDArray[np.bool_]  # [n]: VOC's, trained on but ignored by the metric
    crowd: NDArray[np.bool_]  # [n]: COCO's, not trained on and ignored by the metric
    masks: list[
        Any
    ]  # [n]: COCO's segmentations as the file has them, polygons of 3 points and more or an RLE, [] where there is none

    @property
    def ignored(self) -> NDArray[np.bool_]:
        """[n]: neither missed nor found in an evaluation."""
        return self.difficult | self.crowd


class BoxSet(NamedTuple):
    """The annotated images of a list: files, or ``samples`` of ``shards`` with an equal ``digest``; ``voc``: VOC's metric is due."""

    path: Path
    pictures: list[Picture]
    classes: tuple[str, ...]
    rejects: dict[str, list[str]]
    digest: str
    voc: bool = False
    shards: reader.ShardSet | None = None
    samples: Sequence[int] = ()

    def image(self, number: int) -> Image.Image:
        """Picture ``number`` decoded; a ``ShardError`` if it cannot be read, does not decode, or is not of the annotated size."""
        path, size = self.pictures[number][:2]
        try:
            image = (
                self.shards.image(self.samples[number])
                if self.shards
                else images.decode(storage.read_bytes(path))
            )
        except (OSError, ShardError) as error:
            raise ShardError(
                f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
            ) from error
        if image.size != size:
            raise ShardError(
                "{} has {} × {} pixels, its annotation says {} × {}; correct one of them".format(
                    path, *image.size, *size
                )
            )
        return image


def load(data: str | Path, *, classes: Sequence[str] | None = None) -> BoxSet:
    """The images and boxes that ``data`` lists, those of ``classes``; by default COCO's categories by id, or all VOC names, sorted.

    ``data`` is a COCO instances JSON (images beside it, in ``images`` beside it, or in COCO's own folder layout), a folder with such an
    ``annotations.json``, a VOC list such as ``VOC2007/ImageSets/Main/trainval.txt``, or a set built of one; all else is a ``ShardError``.
    """
    path, whole = storage.locate(data), None
    if all((path / name).is_file() for name in ("index.json", "annotations.json")):
        whole, text = reader.open(path), storage.read_bytes(path / "annotations.json")
        if hashlib.sha256(text).hexdigest() != whole.index.sha256.get("annotations.json"):
            raise ShardError(
                f"{path}/annotations.json is not the file that was written; copy the set again, or build it again"
            )
    if not (known := parse_coco(whole.path, json.loads(text)) if whole else read_annotations(path)):
        lists = [str(name) for name in sorted(path.glob("**/ImageSets/Main/*.txt"))]
        there = f"name one of its lists: {', '.join(lists[:6])}" if lists else "check the path"
        raise ShardError(
            f"wanted a COCO JSON or a VOC list (ImageSets/Main/train.txt) at {data}, or shards of one; {there}"
        )
    label = {
        name: number
        for number, name in enumerate(dict.fromkeys(known.classes if classes is None else classes))
    }
    rejects = known.rejects
    if not known.images:
        raise ShardError(
            f"no image that {known.path} lists is there ({len(rejects)} entries left out: {rejects[:3]}); check the layout"
        )
    pictures = [
        _picture(path, size, objects, label, rejects) for path, size, objects, _ in known.images
    ]
    by_reason = {
        str(reason): [name for other, name in rejects if other == reason]
        for reason in dict.fromkeys(r for r, _ in rejects)
    }
    numbers = {key: number for number, key in enumerate(whole.keys)} if whole else {}
    samples = [numbers[entry["key"]] for *_, entry in known.images] if whole else []
    sizes = (
        whole.index.samples["length"][samples].tolist()
        if whole
        else [picture.path.stat().st_size for picture in pictures]
    )
    voc = bool(known.content.get("voc"))
    rows = (
        [p.path.name, size, p.size, *(values.tolist() for values in p[2:6]), p.masks]
        for p, size in zip(pictures, sizes, strict=True)
    )
    digest = storage.digest(
        [list(label), voc, *map(storage.digest, rows)]
    )  # one by one: the text of all would fill the memory
    return BoxSet(known.path, pictures, tuple(label), by_reason, digest, voc, whole, samples)


def _picture(
    path: Path,
    size: tuple[int, int],
    objects: list[AnnotatedObject],
    label: dict[str, int],
    rejects: list[tuple[str, str]],
) -> Picture:
    rows = list[tuple[Any, ...]]()
    for name, bbox, *rest in objects:
        left, top, width, height = bbox if len(bbox) == 4 else (math.nan,) * 4
        sides = left, top, left + width, top + height
        cut = [min(max(side, 0), limit) for side, limit in zip(sides, size * 2, strict=True)]
        if name in label and min(width, height, cut[2] - cut[0], cut[3] - cut[1]) >= THIN:
            rows.append((cut, label[name], *rest))
        else:
            fault = Reject.OUTSIDE if min(width, height) >= THIN else Reject.DEGENERATE
            rejects.append(
                (
                    fault if name in label else Reject.UNKNOWN_CATEGORY,
                    f"{path.name}: {name} {[*sides]}",
                )
            )
    boxes, labels, difficult, crowd, masks = zip(*rows, strict=True) if rows else ((),) * 5
    corners, flags = (
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([difficult, crowd], np.bool_),
    )
    return Picture(path, size, corners, np.array(labels, np.int64), flags[0], flags[1], [*masks])
