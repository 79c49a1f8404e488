"""Images with boxes around their objects: COCO JSON and Pascal VOC devkits, each parsed only here.

Every box of an image that is there is kept, or rejected under a named reason. An image without boxes is kept: it is background to
learn from and a place for false alarms. A box that reaches over the border is cut at it. Crowds (COCO) and difficult objects (VOC)
are kept as ``ignored``: neither trained on nor missed in an evaluation.
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shards import storage
from shards.errors import ShardError
from shards.images import decode

THIN = 1e-3
"""Pixels; a thinner box has no area: float32 could not tell its sides apart."""


class BoxReject(StrEnum):
    """Why an image or a box of an annotation is not used."""

    NO_IMAGE = "image missing or broken"
    NO_ANNOTATION = "annotation file missing or broken"
    UNKNOWN_IMAGE = "box of an unlisted image"
    UNKNOWN_CATEGORY = "unknown category"
    DEGENERATE = "box without area"
    OUTSIDE = "box outside of the image"


class Picture(NamedTuple):
    """An image file and its n boxes."""

    path: Path
    size: tuple[int, int]
    """Width and height, pixels."""
    boxes: NDArray[np.float32]
    """[n, 4]: left, top, right, bottom in pixels of the upright image; right and bottom are exclusive."""
    labels: NDArray[np.int64]
    """[n]: positions in the set's ``classes``."""
    ignored: NDArray[np.bool_]
    """[n]"""

    def image(self) -> Image.Image:
        """The decoded image.

        Raises:
            ShardError: it does not decode, or is not of the annotated size.
        """
        try:
            image = decode(storage.read_bytes(self.path))
        except OSError as error:
            raise ShardError(f"cannot read {self.path}: {error.strerror or error}") from error
        except ShardError as error:
            raise ShardError(f"{self.path}: {error}") from error
        if image.size != self.size:
            wanted, got = (" × ".join(map(str, size)) for size in (self.size, image.size))
            raise ShardError(f"{self.path} has {got} pixels, its annotation says {wanted}; correct one of them")
        return image


class BoxSet(NamedTuple):
    """The annotated images of one list."""

    path: Path
    pictures: list[Picture]
    classes: tuple[str, ...]
    rejects: dict[str, list[str]]
    """What was left out, by reason."""
    digest: str

    @property
    def counted(self) -> int:
        """Boxes that are not ignored."""
        return sum(int((~picture.ignored).sum()) for picture in self.pictures)


_Object = tuple[str, tuple[float, ...], bool]  # its class, left, top, right and bottom or less where it is broken, whether it is ignored
_Found = list[tuple[Path, tuple[int, int], list[_Object]]]


def load(data: str | Path, *, classes: Sequence[str] | None = None) -> BoxSet:
    """The images and boxes that ``data`` lists.

    Args:
        data: a COCO instances JSON (images beside it, in ``images`` beside it, or in COCO's own folder layout), a folder with such an
            ``annotations.json``, or a list of a VOC devkit, such as ``VOC2007/ImageSets/Main/trainval.txt``.
        classes: the names that count, in the order of their labels; boxes of others are rejected. By default COCO's categories
            by id, or all names in the VOC annotations, sorted.

    Raises:
        ShardError: no such file, another format, or no image of it is there.
    """
    path, rejects = storage.locate(data), list[tuple[BoxReject, str]]()
    if (path / "annotations.json").is_file():
        path /= "annotations.json"
    if not path.is_file() or path.suffix not in (".json", ".txt"):
        lists = [str(name) for name in sorted(path.glob("**/ImageSets/Main/*.txt"))]
        there = f"name one of its lists: {', '.join(lists[:6])}" if lists else "check the path"
        raise ShardError(f"wanted a COCO JSON or a VOC list (ImageSets/Main/train.txt) at {data}; {there}")
    found, names = _coco(path, rejects) if path.suffix == ".json" else _voc(path, rejects)
    label = {name: number for number, name in enumerate(dict.fromkeys(names if classes is None else classes))}
    pictures = [_picture(*image, label, rejects) for image in found]
    if not pictures:
        raise ShardError(f"no image that {path} lists is there ({len(rejects)} entries left out: {rejects[:3]}); check the layout")
    by_reason = {str(reason): [name for other, name in rejects if other is reason] for reason in dict.fromkeys(r for r, _ in rejects)}
    rows = [[p.path.name, p.path.stat().st_size, p.size, p.boxes.tolist(), p.labels.tolist(), p.ignored.tolist()] for p in pictures]
    return BoxSet(path, pictures, tuple(label), by_reason, storage.digest([rows, list(label)]))


def _picture(path: Path, size: tuple[int, int], objects: list[_Object], label: dict[str, int], rejects: list[Any]) -> Picture:
    rows = list[tuple[list[float], int, bool]]()
    for name, corners, ignored in objects:
        left, top, right, bottom = corners if len(corners) == 4 and all(map(math.isfinite, corners)) else (0,) * 4
        cut = [min(max(left, 0), size[0]), min(max(top, 0), size[1]), min(max(right, 0), size[0]), min(max(bottom, 0), size[1])]
        if name not in label:
            reason = BoxReject.UNKNOWN_CATEGORY
        elif min(right - left, bottom - top) < THIN:
            reason = BoxReject.DEGENERATE
        elif min(cut[2] - cut[0], cut[3] - cut[1]) < THIN:
            reason = BoxReject.OUTSIDE
        else:
            rows.append((cut, label[name], ignored))
            continue
        rejects.append((reason, f"{path.name}: {name} {list(corners)}"))
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    return Picture(path, size, boxes, np.array([row[1] for row in rows], np.int64), np.array([row[2] for row in rows], np.bool_))


def _coco(path: Path, rejects: list[Any]) -> tuple[_Found, list[str]]:
    content = storage.read_json(path)
    try:
        listed = {image["id"]: image for image in content["images"]}
        categories = {one["id"]: str(one["name"]) for one in sorted(content["categories"], key=lambda one: one["id"])}
        objects: dict[Any, list[_Object]] = {number: [] for number in listed}
        for one in content["annotations"]:
            # a category that is not listed has no name: its number is none that a class could have
            name = categories.get(one["category_id"], f"#{one['category_id']}")
            corners = _numbers(one["bbox"])
            if len(corners) == 4:
                corners = (*corners[:2], corners[0] + corners[2], corners[1] + corners[3])
            if one["image_id"] in objects:
                objects[one["image_id"]].append((name, corners, bool(one.get("iscrowd", 0))))
            else:
                rejects.append((BoxReject.UNKNOWN_IMAGE, f"image {one['image_id']}: {name}"))
        files = {number: (str(image["file_name"]), (int(image["width"]), int(image["height"]))) for number, image in listed.items()}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ShardError(f"{path} is no COCO instances file: {type(error).__name__} {error}") from None
    folder = path.absolute().parent
    roots = (folder, folder / "images", folder.parent / path.stem.removeprefix("instances_"))
    found: _Found = []
    for number, (file, size) in files.items():
        if image := next((root / file for root in roots if (root / file).is_file()), None):
            found.append((image, size, objects[number]))
        else:
            rejects.append((BoxReject.NO_IMAGE, file))
    return found, list(dict.fromkeys(categories.values()))


def _voc(path: Path, rejects: list[Any]) -> tuple[_Found, list[str]]:
    root = path.absolute().parent.parent.parent
    found: _Found = []
    try:
        stems = dict.fromkeys(line.split()[0] for line in storage.read_bytes(path).decode().splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ShardError(f"{path} is no VOC list: {error}") from None
    for stem in stems:
        try:
            tree = ElementTree.fromstring(storage.read_bytes(root / "Annotations" / f"{stem}.xml"))
            files = [root / "JPEGImages" / name for name in (f"{stem}.jpg", tree.findtext("filename", ""))]
            image = next(file for file in files if file.is_file())
            size = int(float(tree.findtext("size/width", "0"))), int(float(tree.findtext("size/height", "0")))
            size = size if min(size) > 0 else decode(storage.read_bytes(image)).size
            found.append((image, size, [_object(one) for one in tree.findall("object")]))
        except (StopIteration, ShardError):
            rejects.append((BoxReject.NO_IMAGE, stem))
        except (OSError, ValueError, LookupError, OverflowError, ElementTree.ParseError):
            rejects.append((BoxReject.NO_ANNOTATION, stem))
    return found, sorted({name for _, _, objects in found for name, *_ in objects})


def _object(one: ElementTree.Element) -> _Object:
    corners = _numbers(one.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
    if len(corners) < 4 or corners[0] >= corners[2] or corners[1] >= corners[3]:
        corners = corners[:2] * 2  # without extent as written, it stays without
    else:
        corners = corners[0] - 1, corners[1] - 1, *corners[2:]  # the first pixel is 1, and the last one belongs to the box
    return one.findtext("name", "").strip(), corners, one.findtext("difficult", "").strip() == "1"


def _numbers(values: Any) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        return ()
