"""Lists of Pascal VOC devkits, such as ``VOC2007/ImageSets/Main/trainval.txt``.

A shard set keeps its annotations in COCO's format, whatever they come from. So a list of VOC is
written as such a document first, and then parsed as one.
"""

from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from shards import images, storage
from shards.errors import ShardError
from shards.rejects import Reject, Rejection
from shards.sources.annotations import Annotations, finite_numbers
from shards.sources.coco import parse_coco

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class _Picture(NamedTuple):
    """One image of a list: COCO's ``images`` entry, and its ``annotations`` but for their ids."""

    entry: dict[str, Any]
    objects: list[dict[str, Any]]


def read_voc(path: Path) -> Annotations:
    """Read a list and the annotations that it names.

    Args:
        path: path of the list, in ``ImageSets/Main`` of a devkit's folder.

    Returns:
        What they say.

    Raises:
        ShardError: It is no such list.
    """
    root = path.absolute().parent.parent.parent
    document = _as_coco(path, root)
    return parse_coco(root / "JPEGImages", document)._replace(path=path)


def _as_coco(path: Path, root: Path) -> dict[str, Any]:
    """The list as a document in COCO's format.

    Args:
        path: path of the list.
        root: the folder with ``Annotations`` and ``JPEGImages``.
    """
    pictures = list[_Picture]()
    rejects = list[Rejection]()
    for stem in _read_stems(path):
        try:
            pictures.append(_read_picture(root, stem))
        except (StopIteration, ShardError):
            rejects.append(Rejection(Reject.NO_IMAGE, stem))
        except (OSError, ValueError, LookupError, OverflowError, ElementTree.ParseError):
            rejects.append(Rejection(Reject.NO_ANNOTATION, stem))
    annotations = list[dict[str, Any]]()
    for picture in pictures:
        for annotation in picture.objects:
            annotations.append({"id": len(annotations) + 1, "iscrowd": 0, **annotation})
    names = sorted({annotation["category_id"] for annotation in annotations})
    return {
        "voc": True,
        "images": [picture.entry for picture in pictures],
        "categories": [{"id": name, "name": name} for name in names],
        "annotations": annotations,
        "rejects": rejects,
    }


def _read_stems(path: Path) -> list[str]:
    """The names of the images in a list: the first word of each line, once."""
    try:
        lines = storage.read_bytes(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ShardError(f"{path} is no VOC list: {error}") from None
    return list(dict.fromkeys(line.split()[0] for line in lines if line.strip()))


def _read_picture(root: Path, stem: str) -> _Picture:
    """One image with its annotations.

    Args:
        root: the folder with ``Annotations`` and ``JPEGImages``.
        stem: the name of the image without its suffix.

    Raises:
        StopIteration: There is no image of that name.
        ShardError: Its size is not annotated, and it does not decode.
        OSError: There is no annotation, or it is unreadable.
        ValueError: The annotation has a size that is no number.
        OverflowError: The annotation has a size that is infinite.
        ElementTree.ParseError: The annotation is no XML.
    """
    xml = storage.read_bytes(root / "Annotations" / f"{stem}.xml")
    tree = ElementTree.fromstring(xml)
    names = (f"{stem}.jpg", tree.findtext("filename", ""))
    name = next(name for name in names if (root / "JPEGImages" / name).is_file())
    width = int(float(tree.findtext("size/width", "0")))
    height = int(float(tree.findtext("size/height", "0")))
    if min(width, height) <= 0:
        image = images.decode(storage.read_bytes(root / "JPEGImages" / name))
        width, height = image.size
    entry = {"id": stem, "file_name": name, "width": width, "height": height}
    return _Picture(entry, [_parse_object(node, stem) for node in tree.findall("object")])


def _parse_object(node: ElementTree.Element, stem: str) -> dict[str, Any]:
    """One object as one of COCO's ``annotations``, but for its id."""
    sides = finite_numbers(node.findtext(f"bndbox/{corner}") for corner in _CORNERS)
    x_min, y_min, x_max, y_max = sides or (0, 0, 0, 0)
    extent: tuple[float, float] = (0, 0)
    # a box without extent as it is written stays without
    if x_min < x_max and y_min < y_max:
        # the last pixel belongs to the box
        extent = (x_max - x_min + 1, y_max - y_min + 1)
    return {
        "image_id": stem,
        "category_id": node.findtext("name", "").strip(),
        # the first pixel is 1
        "bbox": (x_min - 1, y_min - 1, *extent),
        "difficult": node.findtext("difficult", "").strip() == "1",
    }
