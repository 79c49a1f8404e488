"""Pascal VOC: lists such as ``VOC2007/ImageSets/Main/trainval.txt``, and folders without lists.

A shard set keeps its annotations in COCO's format, whatever they come from. So a list of VOC is
written as such a document first, and then parsed as one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from shards import storage
from shards.counted import images_that
from shards.errors import ShardError
from shards.rejects import Reject, Rejection
from shards.sources.annotations import Annotations, finite_numbers
from shards.sources.coco import parse_coco
from shards.sources.image_sizes import OtherSizeError, SizeCheck
from shards.sources.voc_files import (
    VocFiles,
    files_of_folder,
    files_of_list,
    lists_of,
    without_flag,
)

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class _Picture(NamedTuple):
    """One image of a list: COCO's ``images`` entry, and its ``annotations`` but for their ids."""

    entry: dict[str, Any]
    objects: list[dict[str, Any]]


class _LeftOutError(ShardError):
    """Raised for an image of a list that cannot be used, with the reason."""

    def __init__(self, reason: Reject) -> None:
        super().__init__(reason)
        self.reason = reason


def read_voc(path: Path) -> Annotations:
    """Read a list and the annotations that it names.

    Args:
        path: path of the list, in ``ImageSets/Main`` of a devkit's folder.

    Returns:
        What they say. An image that is there without an annotation is one without objects, as CVAT
        and datumaro write it.

    Raises:
        ShardError: It is no such list.
    """
    lines = _read_lines(path)
    files = files_of_list(path)
    names = dict[str, str]()
    rejects = list[Rejection]()
    for name, line in zip(files.names_of_lines(lines), lines, strict=True):
        first = names.setdefault(name, line)
        if without_flag(first) != without_flag(line):
            rejects.append(Rejection(Reject.DUPLICATE, line))
    return _read_all(path, files, list(names), rejects)


def read_voc_folder(folder: Path) -> Annotations | None:
    """Read a folder that has annotations and images, and one list or none.

    Args:
        folder: path of the folder.

    Returns:
        What its annotations say, or None if it is no such folder.

    Raises:
        ShardError: It has several lists.
    """
    lists = lists_of(folder)
    if len(lists) == 1:
        return read_voc(lists[0])
    if lists:
        raise ShardError(
            f"{folder} has {len(lists)} VOC lists of images and boxes; name one of its lists: "
            f"{', '.join(map(str, lists[:6]))}; or its folder of images, for images alone"
        )
    files = files_of_folder(folder.absolute())
    if files is None:
        return None
    return _read_all(folder, files, sorted(files.xmls), [])


def _read_all(
    path: Path, files: VocFiles, stems: Sequence[str], rejects: list[Rejection]
) -> Annotations:
    """What the annotations of some names say.

    Args:
        path: path of what names them.
        files: what is there.
        stems: the names.
        rejects: what was left out of the names.
    """
    pictures = list[_Picture]()
    check = SizeCheck()
    image_names = set[str]()
    for stem in stems:
        try:
            picture = _read_picture(files, stem, check)
        except _LeftOutError as error:
            rejects.append(Rejection(error.reason, stem))
            continue
        image_name = picture.entry["file_name"]
        if image_name in image_names:
            rejects.append(Rejection(Reject.SHARED_FILE, stem))
            continue
        image_names.add(image_name)
        pictures.append(picture)
    annotations = parse_coco(files.images, _as_coco(pictures, rejects))
    background = sum(picture.entry["id"] not in files.xmls for picture in pictures)
    notes = check.notes()
    if background:
        notes.append(f"{images_that(background, 'has', 'have')} no .xml file: kept without objects")
    return annotations._replace(path=path, notes=notes)


def _as_coco(pictures: Sequence[_Picture], rejects: Sequence[Rejection]) -> dict[str, Any]:
    """A list as a document in COCO's format."""
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


def _read_lines(path: Path) -> list[str]:
    """The lines of a list without the blanks around them, each once."""
    try:
        lines = storage.read_bytes(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ShardError(f"{path} is no VOC list: {error}") from None
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _read_picture(files: VocFiles, stem: str, check: SizeCheck) -> _Picture:
    """One image with its annotations.

    Args:
        files: what is there.
        stem: the name of the image without its suffix.
        check: of its size.

    Raises:
        _LeftOutError: The image or its annotation is missing or broken, or they do not agree.
    """
    tree = ElementTree.Element("annotation")
    if stem in files.xmls:
        tree = _read_xml(files.annotations / files.xmls[stem])
    name = files.image_name(stem, tree.findtext("filename", "").strip())
    if name is None:
        raise _LeftOutError(Reject.NO_IMAGE)
    try:
        width = int(float(tree.findtext("size/width", "0")))
        height = int(float(tree.findtext("size/height", "0")))
    except (ValueError, OverflowError):
        raise _LeftOutError(Reject.NO_ANNOTATION) from None
    written = (width, height) if min(width, height) > 0 else None
    try:
        size = check.size(files.images / name, written)
    except OtherSizeError:
        raise _LeftOutError(Reject.OTHER_SIZE) from None
    if size is None:
        raise _LeftOutError(Reject.NO_IMAGE)
    entry = {"id": stem, "file_name": name, "width": size[0], "height": size[1]}
    return _Picture(entry, [_parse_object(node, stem) for node in tree.findall("object")])


def _read_xml(file: Path) -> ElementTree.Element:
    """The root of an annotation."""
    try:
        return ElementTree.fromstring(storage.read_bytes(file))
    except (OSError, ValueError, LookupError, ElementTree.ParseError):
        raise _LeftOutError(Reject.NO_ANNOTATION) from None


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
