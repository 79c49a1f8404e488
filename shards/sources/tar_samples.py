"""Which members of a tar are samples: of one key the image, not the maps that belong to it.

WebDataset makes one sample of all members of a key, which ends at the first dot of a file name:
``7.jpg``, ``7.seg.png`` and ``7.cls`` are an image, its label map and its class. Names with dots of
their own (``img_0.5.jpg``) and several views (``x.left.jpg``) are samples each.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple
from shards.images import SUFFIXES
from shards.index import webdataset_key
from shards.kinds import UNREAD_SUFFIXES, reason_without_image
from shards.rejects import Rejection
from shards.sources.archives import Archive, Member
from shards.sources.candidates import suffix

# of one name, the first of these is the photograph
_PREFERRED = (".jpg", ".jpeg", ".webp", ".avif", ".png")
_SIDES = (".cls", ".json", ".txt")
_MAPS = frozenset(
    (
        *("seg", "segm", "segmentation", "semseg", "semantic", "instance", "panoptic", "parsing"),
        *("mask", "masks", "label", "labels", "gt", "trimap", "matte", "alpha", "annotation"),
        *("depth", "disparity", "normal", "normals", "edge", "edges", "canny", "flow"),
        *("saliency", "heatmap", "sketch"),
    )
)


class TarSample(NamedTuple):
    """An image in a tar.

    Attributes:
        archive: the tar.
        member: the image.
        texts: what may be its label, of all members beside it.
    """

    archive: Archive
    member: Member
    texts: dict[str, str]


class TarContent(NamedTuple):
    """What is in some tars.

    Attributes:
        samples: the images.
        rejects: everything else that belongs to no image.
        maps: names of image files that belong to another one.
        has_fields: whether an image has anything beside it, as in a WebDataset.
    """

    samples: list[TarSample]
    rejects: list[Rejection]
    maps: list[str]
    has_fields: bool


class _Sides:
    """The members of a tar that say something of its images.

    Args:
        archive: the tar.
        images: those of its members that are samples.
    """

    def __init__(self, archive: Archive, images: Iterable[Member]) -> None:
        self._stems = {_stem(image.name) for image in images}
        self._by_stem = dict[tuple[str, str], Member]()
        self._by_key = dict[str, list[Member]]()
        self.unused = dict[int, Member]()
        for member in archive.members:
            kind = suffix(member.name)
            if kind not in _SIDES:
                continue
            self._by_stem.setdefault((_stem(member.name), kind), member)
            if kind == ".cls":
                self._by_key.setdefault(webdataset_key(member.name), []).append(member)
                self.unused[member.offset] = member

    def texts_of(self, image: Member) -> dict[str, str]:
        """What is said of an image, by members of its name or, without such, of its key."""
        key = webdataset_key(image.name)
        texts = dict[str, str]()
        for kind in _SIDES:
            side = self._by_stem.get((_stem(image.name), kind)) or self._by_stem.get((key, kind))
            if side is None and kind == ".cls":
                side = self._class_of_key(key)
            if side is not None:
                self.unused.pop(side.offset, None)
                texts |= side.texts
        return texts

    def _class_of_key(self, key: str) -> Member | None:
        """The ``.label.cls`` or the like of a key, if there is a single one of no other image."""
        members = self._by_key.get(key, [])
        free = [member for member in members if _stem(member.name) not in self._stems]
        named = [member for member in free if _field(member.name) in ("label.cls", "class.cls")]
        chosen = named or free
        return chosen[0] if len(chosen) == 1 else None


def read_samples(archives: Sequence[Archive]) -> TarContent:
    """Find the samples in some tars.

    Args:
        archives: the tars.

    Returns:
        The images with what is said of them; of several image files of a key those that are no
        maps, and no second form of the first (``7.png`` beside ``7.jpg``, if most keys are so).
    """
    groups = [_by_key(archive) for archive in archives]
    fields = [_has_fields(*pair) for pair in zip(archives, groups, strict=True)]
    content = TarContent([], [], [], any(fields))
    keys = [images for by_key in groups for images in by_key.values()]
    map_fields = {field for images in keys for field in _map_fields(images)}
    several = sum(len({*map(_plain_form, images)} - {""}) > 1 for images in keys)
    paired = 2 * several > len(keys)
    for archive, by_key in zip(archives, groups, strict=True):
        chosen = list[Member]()
        for images in by_key.values():
            chosen += _samples_of_key(images, map_fields, paired=paired)
        _add_archive(content, archive, chosen)
    return content


def _add_archive(content: TarContent, archive: Archive, chosen: Sequence[Member]) -> None:
    """Add the samples of a tar, and what is left out of it.

    Args:
        content: what they are added to.
        archive: the tar.
        chosen: the images that are samples.
    """
    sides = _Sides(archive, chosen)
    content.samples.extend(TarSample(archive, image, sides.texts_of(image)) for image in chosen)
    content.rejects.extend(archive.rejects)
    offsets = {image.offset for image in chosen}
    image_keys = {webdataset_key(image.name) for image in chosen}
    for member in archive.members:
        name = f"{archive.name}/{member.name}"
        if suffix(member.name) in SUFFIXES:
            is_used = member.offset in offsets
            content.maps.extend(() if is_used else (name,))
        else:
            is_beside = webdataset_key(member.name) in image_keys
            is_used = is_beside and member.offset not in sides.unused
        if not is_used:
            reason = reason_without_image(suffix(member.name))
            content.rejects.append(Rejection(reason, name))


def _by_key(archive: Archive) -> dict[str, list[Member]]:
    """The image files of a tar by their keys."""
    images = dict[str, list[Member]]()
    for member in archive.members:
        if suffix(member.name) in SUFFIXES:
            images.setdefault(webdataset_key(member.name), []).append(member)
    return images


def _has_fields(archive: Archive, keys: Collection[str]) -> bool:
    """Whether a tar has anything but images under the keys of its images."""
    # a camera's raw file beside its JPEG says nothing of it
    images = SUFFIXES | UNREAD_SUFFIXES
    others = (member.name for member in archive.members if suffix(member.name) not in images)
    return any(webdataset_key(name) in keys for name in others)


def _map_fields(images: Sequence[Member]) -> set[str]:
    """The fields of a key that are called like maps, if there is another image to have them."""
    fields = {_field(image.name) for image in images}
    maps = {field for field in fields if _is_called_map(field)}
    return maps if maps < fields else set()


def _samples_of_key(
    images: Sequence[Member], map_fields: Collection[str], *, paired: bool
) -> list[Member]:
    """The image files of a key that are samples.

    Args:
        images: all of the key.
        map_fields: fields that are maps, also where a key has nothing else: the image is missing.
        paired: whether those that differ by their suffix alone are forms of one image.
    """
    views = [image for image in images if _field(image.name) not in map_fields]
    forms = sorted({*map(_plain_form, views)} - {""}, key=_rank)
    if not forms:
        return views
    kept = {*forms[:1]} if paired else {*forms}
    return [image for image in views if _plain_form(image) in kept or _is_numbered(image.name)]


def _rank(form: str) -> tuple[int, str]:
    """How little a suffix is that of a photograph."""
    place = _PREFERRED.index(form) if form in _PREFERRED else len(_PREFERRED)
    return place, form


def _plain_form(image: Member) -> str:
    """The suffix of an image that has nothing else behind its key, "" of another one."""
    field = _field(image.name)
    return "" if "." in field else f".{field}"


def _is_numbered(name: str) -> bool:
    """Whether what is between key and suffix is a number, which is a part of the name."""
    return re.fullmatch(r"[\d.]+\.[^.\d][^.]*", _field(name)) is not None


def _is_called_map(field: str) -> bool:
    """Whether a field is called like a label map."""
    words = re.findall(r"[a-z]+", field.rpartition(".")[0])
    return not _MAPS.isdisjoint(words)


def _field(name: str) -> str:
    """What is behind the key of a member, in lower case: ``seg.png`` of ``a/7.seg.PNG``."""
    return name[len(webdataset_key(name)) + 1 :].lower()


def _stem(name: str) -> str:
    """The name of a member without its last suffix."""
    kind = suffix(name)
    return name[: -len(kind)] if kind else name
