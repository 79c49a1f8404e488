"""Images with boxes, of COCO JSON, VOC devkits or shard sets, parsed only here: each is kept, without boxes too, or rejected by name."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shards import images, reader, storage
from shards.errors import ShardError
from shards.images import Reject

THIN = 1e-3  # pixels; a thinner box has no area: float32 could not tell its sides apart
_Object = tuple[
    str, tuple[float, ...], bool, bool, Any
]  # its class, left, top, width and height or (), difficult, crowd, mask


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


class Annotations(NamedTuple):
    """What a list says, before classes and borders are looked at; ``content`` is in COCO's format, VOC's with ``voc`` and ``difficult``."""

    path: Path
    content: dict[str, Any]
    classes: list[str]
    images: list[
        tuple[Path, tuple[int, int], list[_Object], dict[str, Any]]
    ]  # that are there: file, size, objects, COCO's entry
    rejects: list[tuple[str, str]]


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
    if not (known := _coco(whole.path, json.loads(text)) if whole else read(path)):
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


def read(data: str | Path) -> Annotations | None:
    """What the COCO JSON, the folder with one, or the VOC list at ``data`` says; None where there is none, a ``ShardError`` of no sense."""
    path = storage.locate(data)
    if (path / "annotations.json").is_file() and not (path / "index.json").is_file():
        path /= "annotations.json"
    kind, folder = path.suffix if path.is_file() else "", path.absolute().parent
    if kind == ".txt":
        return _voc(path, folder.parent.parent)
    roots = folder, folder / "images", folder.parent / path.stem.removeprefix("instances_")
    return _coco(path, storage.read_json(path), *roots) if kind == ".json" else None


def _picture(
    path: Path,
    size: tuple[int, int],
    objects: list[_Object],
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


def _coco(path: Path, content: Any, *roots: Path) -> Annotations:
    found = list[Any]()
    try:
        listed = {image["id"]: image for image in content["images"]}
        categories = {
            one["id"]: str(one["name"])
            for one in sorted(content["categories"], key=lambda one: one["id"])
        }
        rejects = [(str(reason), str(name)) for reason, name in content.get("rejects", [])]
        objects: dict[Any, list[_Object]] = {number: [] for number in listed}
        for one in content["annotations"]:
            # a category that is not listed has no name: its number is none that a class could have
            name = categories.get(one["category_id"], f"#{one['category_id']}")
            flags, mask = (
                (bool(content.get("voc") and one.get("difficult")), bool(one.get("iscrowd"))),
                one.get("segmentation") or [],
            )
            if not (isinstance(mask, dict) and {"counts", "size"} <= mask.keys()):
                mask = [
                    polygon
                    for polygon in mask
                    if isinstance(polygon, list) and len(_numbers(polygon)) >= 6
                ]
            if one["image_id"] in objects:
                objects[one["image_id"]].append((name, _numbers(one["bbox"]), *flags, mask))
            else:
                rejects.append((Reject.UNKNOWN_IMAGE, f"image {one['image_id']}: {name}"))
        for number, image in listed.items():
            file, size = str(image["file_name"]), (int(image["width"]), int(image["height"]))
            if there := next(
                (root / file for root in roots if (root / file).is_file()),
                None if roots else path / file,
            ):
                found.append((there, size, objects[number], image))
            else:
                rejects.append((Reject.NO_IMAGE, file))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ShardError(
            f"{path} is no COCO instances file: {type(error).__name__} {error}"
        ) from None
    return Annotations(path, content, list(dict.fromkeys(categories.values())), found, rejects)


def _voc(path: Path, root: Path) -> Annotations:
    entries, objects, rejects = (
        list[dict[str, Any]](),
        list[dict[str, Any]](),
        list[tuple[str, str]](),
    )
    try:
        stems = dict.fromkeys(
            line.split()[0]
            for line in storage.read_bytes(path).decode().splitlines()
            if line.strip()
        )
    except (OSError, UnicodeDecodeError) as error:
        raise ShardError(f"{path} is no VOC list: {error}") from None
    for stem in stems:
        try:
            tree = ElementTree.fromstring(storage.read_bytes(root / "Annotations" / f"{stem}.xml"))
            file = next(
                name
                for name in (f"{stem}.jpg", tree.findtext("filename", ""))
                if (root / "JPEGImages" / name).is_file()
            )
            width, height = (
                int(float(tree.findtext(f"size/{side}", "0"))) for side in ("width", "height")
            )
            if min(width, height) <= 0:
                width, height = images.decode(storage.read_bytes(root / "JPEGImages" / file)).size
            for one in tree.findall("object"):
                left, top, right, bottom = (
                    _numbers(
                        one.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")
                    )
                    or (0,) * 4
                )
                # the first pixel is 1, and the last one belongs to the box; without extent as written, it stays without
                extent = (
                    (right - left + 1, bottom - top + 1)
                    if left < right and top < bottom
                    else (0, 0)
                )
                name, difficult = (
                    one.findtext("name", "").strip(),
                    one.findtext("difficult", "").strip() == "1",
                )
                objects.append(
                    {
                        "image_id": stem,
                        "category_id": name,
                        "bbox": (left - 1, top - 1, *extent),
                        "difficult": difficult,
                    }
                )
            entries.append({"id": stem, "file_name": file, "width": width, "height": height})
        except (StopIteration, ShardError):
            rejects.append((Reject.NO_IMAGE, stem))
        except (OSError, ValueError, LookupError, OverflowError, ElementTree.ParseError):
            rejects.append((Reject.NO_ANNOTATION, stem))
    categories = [
        {"id": name, "name": name} for name in sorted({one["category_id"] for one in objects})
    ]
    annotations = [{"id": n, "iscrowd": 0, **one} for n, one in enumerate(objects, 1)]
    content = {
        "voc": True,
        "images": entries,
        "categories": categories,
        "annotations": annotations,
        "rejects": rejects,
    }
    return _coco(root / "JPEGImages", content)._replace(path=path)


def _numbers(values: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, values))
    except (TypeError, ValueError, OverflowError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()
