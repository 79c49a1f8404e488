"""Images whose every pixel has a class: beside files of labels, or by the masks of objects.

A pixel of the value 255 is neither learned nor scored. Which classes there are, a file beside the
masks says, or the style of a well-known data set, or else the values; of objects the list, behind a
class for what is none of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol
from PIL import Image
from shards import boxes, storage
from shards.contents import contents_of
from shards.cores import available_cores
from shards.errors import ShardError
from shards.label_files import (
    IGNORED,
    Coding,
    Labels,
    names_from,
    palette_colour,
    plain_coding,
    read_labels,
    values_in,
)
from shards.listed_images import ListedFiles, listed_files
from shards.misspelt import suggestion
from shards.object_labels import label_pixels
from shards.pixel_report import PixelReport
from shards.rejects import describe, group_by_reason
from shards.sources.candidates import Candidate
from shards.sources.mask_files import MaskedImage, MaskListing, list_masks

BACKGROUND = "background"
VOC_CLASSES = (
    *(BACKGROUND, "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
# the ids of Cityscapes' labelIds that are evaluated, with their names
CITY_CLASSES = {
    **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole"},
    **{19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky"},
    **{24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train"},
    **{32: "motorcycle", 33: "bicycle"},
}
_CITY_IDS = 34
# files beside masks that list the classes
_CLASS_FILES = ("classes.txt", "class_names.txt", "labelmap.txt")
# classes of such files that do not count
_NO_CLASSES = frozenset(("ignored", "ignore", "void", "__ignore__", "unlabeled", "unlabelled"))


class LabelledImages(Protocol):
    """Images by number, and the class of each of their pixels."""

    @property
    def pixels(self) -> PixelReport:
        """How they became 8 bits of red, green and blue."""

    def image(self, number: int, /) -> Image.Image:
        """Decode one: RGB, upright."""

    def labels(self, number: int, /) -> Labels:
        """Its classes [height, width], 255 of what does not count."""


class SegmentationSet(NamedTuple):
    """Images, and the class of each of their pixels.

    Attributes:
        path: of what lists them.
        classes: their names.
        keys: the names of the images [n].
        images: images and labels by number.
        rejects: what was left out, by reason.
        digest: equal for equal images, labels and classes.
        cityscapes: whether it is Cityscapes, which has a protocol of its own.
    """

    path: Path
    classes: tuple[str, ...]
    keys: tuple[str, ...]
    images: LabelledImages
    rejects: Mapping[str, Sequence[str]]
    digest: str
    cityscapes: bool = False

    def image(self, number: int) -> Image.Image:
        """Decode an image: RGB, upright.

        Raises:
            ShardError: It cannot be read, or does not decode.
        """
        return self.images.image(number)

    def sample(self, number: int) -> tuple[Image.Image, Labels]:
        """An image and the class of each of its pixels.

        Args:
            number: of the image.

        Returns:
            RGB, upright; and [height, width], 255 of what does not count.

        Raises:
            ShardError: One of them cannot be read, or they differ in size.
        """
        image = self.image(number)
        labels = self.images.labels(number)
        height, width = labels.shape
        if image.size != (width, height):
            raise ShardError(
                f"{self.keys[number]} of {self.path} has {image.width} × {image.height} pixels, "
                f"its labels have {width} × {height}; correct one of them"
            )
        return image, labels


class LabelFiles(NamedTuple):
    """Images beside files of labels.

    Attributes:
        images: the images.
        files: those of the labels.
        coding: what the values in these mean.
    """

    images: ListedFiles
    files: Sequence[Path]
    coding: Coding

    @property
    def pixels(self) -> PixelReport:
        """How the images became 8 bits of red, green and blue."""
        return PixelReport(self.images.rule.document())

    def image(self, number: int) -> Image.Image:
        """Decode one: RGB, upright."""
        return self.images.image(number)

    def labels(self, number: int) -> Labels:
        """Its classes [height, width].

        Raises:
            ShardError: The file cannot be read, or is no file of labels of these classes.
        """
        return read_labels(_read(self.files[number]), self.coding, str(self.files[number]))


class ObjectImages(NamedTuple):
    """Images with the masks of their objects.

    Attributes:
        data: of them.
    """

    data: boxes.BoxSet

    @property
    def pixels(self) -> PixelReport:
        """How the images became 8 bits of red, green and blue."""
        return self.data.pixels

    def image(self, number: int) -> Image.Image:
        """Decode one: RGB, upright."""
        return self.data.image(number)

    def labels(self, number: int) -> Labels:
        """Its classes [height, width]: those of its objects, 0 where none is."""
        return label_pixels(self.data.pictures[number])


def load(
    data: str | Path,
    *,
    classes: Sequence[str] | None = None,
    image_root: str | Path | None = None,
) -> SegmentationSet:
    """The images of a list or a folder, and the class of each of their pixels.

    Args:
        data: a VOC list such as ``VOC2012/ImageSets/Segmentation/train.txt``; one of an image and a
            mask a line; Cityscapes' ``leftImg8bit/train``; a folder of images and masks, see
            ``list_masks``; a COCO JSON with masks, or a shard set of one.
        classes: their names, in this order, of the set that is learned from.
        image_root: the folder of a COCO JSON's images, where they are not found around it.

    Raises:
        ShardError: It is none of these, damaged, none of its images is there, or it has classes
            that ``classes`` does not name.
    """
    path = storage.locate(data)
    if boxes.is_annotated_set(path) or path.suffix.lower() == ".json":
        return _of_objects(data, classes, image_root)
    listing = list_masks(path) if path.exists() else None
    if listing is not None and listing.pairs:
        if image_root is not None:
            raise ShardError(
                f"wanted a COCO JSON whose images are in {image_root}, got {data}; leave "
                "--image-root out"
            )
        return _of_files(path, listing, classes)
    if path.is_dir() and (path / "annotations.json").is_file():
        return _of_objects(data, classes, image_root)
    raise ShardError(
        "wanted images and a class for each of their pixels: a list of VOC's "
        "ImageSets/Segmentation, Cityscapes' leftImg8bit/train, a folder of images and masks, a "
        f"COCO JSON with masks or shards of one; got {data}; {_advice(data, listing)}"
    )


def _advice(data: str | Path, listing: MaskListing | None) -> str:
    """What to do with what has no classes of pixels.

    Args:
        data: as it was asked for.
        listing: what was found there of images and masks, none of them a pair.
    """
    path = storage.locate(data)
    if listing is not None and listing.rejects:
        return f"left out: {describe(group_by_reason(listing.rejects))}"
    if (path / "index.json").is_file():
        return "a shard set has classes of pixels where it was built of a COCO JSON with masks"
    parts = []
    if path.is_dir():
        lists = sorted(path.glob("ImageSets/Segmentation/*.txt"))
        folders = [folder for folder in sorted(path.iterdir()) if folder.is_dir()]
        parts = [*lists, *(folder for folder in folders if _has_pairs(folder))]
    if parts:
        return f"name one of {', '.join(map(str, parts[:6]))}"
    return f"check the path{suggestion(data)}"


def _has_pairs(folder: Path) -> bool:
    """Whether a folder has images and masks."""
    listing = list_masks(folder)
    return listing is not None and bool(listing.pairs)


def _of_objects(
    data: str | Path, classes: Sequence[str] | None, image_root: str | Path | None
) -> SegmentationSet:
    """Annotated images whose objects have masks."""
    wanted = None if classes is None else [name for name in classes if name != BACKGROUND]
    annotated = boxes.load(data, classes=wanted, image_root=image_root)
    if BACKGROUND in annotated.classes:
        return _of_objects(data, annotated.classes, image_root)
    if not any(any(picture.masks) for picture in annotated.pictures):
        raise ShardError(
            f"wanted masks, polygons or RLEs, of the objects of {data}, got boxes alone; care "
            "evaluate detect is for these"
        )
    names = (BACKGROUND, *annotated.classes)
    if len(names) > IGNORED:
        raise ShardError(f"wanted up to {IGNORED} classes, got {len(names)} of {data}")
    return SegmentationSet(
        path=annotated.path,
        classes=names,
        keys=tuple(picture.path.name for picture in annotated.pictures),
        images=ObjectImages(annotated),
        rejects=annotated.rejects,
        digest=storage.digest(["pixels", annotated.digest]),
    )


def _of_files(path: Path, listing: MaskListing, classes: Sequence[str] | None) -> SegmentationSet:
    """Images beside files of labels."""
    pairs = listing.pairs
    names, coding = _classes_of(listing, classes)
    masks = contents_of([_candidate(pair.labels) for pair in pairs])
    images = listed_files([_candidate(pair.image) for pair in pairs])
    keys = tuple(pair.name for pair in pairs)
    content = list(zip(keys, images.contents, masks, strict=True))
    meaning = [sorted(coding.numbers.items()), sorted(coding.colours.items())]
    return SegmentationSet(
        path=path,
        classes=names,
        keys=keys,
        images=LabelFiles(images, [pair.labels for pair in pairs], coding),
        rejects=group_by_reason(listing.rejects),
        digest=storage.digest([names, meaning, content]),
        cityscapes=listing.style == "cityscapes",
    )


def _classes_of(
    listing: MaskListing, classes: Sequence[str] | None
) -> tuple[tuple[str, ...], Coding]:
    """The names of the classes, and what the values in the files mean."""
    written = _listed_classes(listing.folders)
    if written is not None:
        return _renumbered(*written, classes)
    if listing.style == "cityscapes":
        ids = [CITY_CLASSES.get(number, "void") for number in range(_CITY_IDS)]
        return _renumbered(ids, {}, classes)
    values = _values_in(listing.pairs)
    highest = max(values - {IGNORED}, default=0)
    if values <= {0, IGNORED} and IGNORED in values and listing.style != "voc":
        # what programs that know two classes write: black, and white for the object
        two_names = (BACKGROUND, "object") if classes is None else tuple(classes)
        return two_names, Coding({0: 0, IGNORED: 1}, {0: 0, 0xFFFFFF: 1})
    if classes is not None:
        return tuple(classes), plain_coding(len(classes))
    if listing.style == "voc" and highest < len(VOC_CLASSES):
        return VOC_CLASSES, plain_coding(len(VOC_CLASSES))
    names = (BACKGROUND, *(f"class {number}" for number in range(1, highest + 1)))
    return names, plain_coding(len(names))


def _listed_classes(folders: Iterable[Path]) -> tuple[list[str], dict[int, str]] | None:
    """The classes of the nearest file that lists them, by number and perhaps by colour."""
    for folder in folders:
        for name in _CLASS_FILES:
            if (folder / name).is_file():
                text = storage.read_bytes(folder / name).decode("utf-8-sig", errors="replace")
                names, by_colour = names_from(text.splitlines())
                if names:
                    return names, by_colour
    return None


def _renumbered(
    names: Sequence[str], by_colour: Mapping[int, str], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], Coding]:
    """Classes by the numbers that they have in the set that is learned from.

    Raises:
        ShardError: That set has not all of them.
    """
    counted = [name for name in names if name and name.lower() not in _NO_CLASSES]
    wanted = tuple(dict.fromkeys(counted) if classes is None else classes)
    unknown = sorted({*counted} - {*wanted})
    if unknown:
        raise ShardError(
            f"wanted classes that are learned, which are {', '.join(wanted)}; got "
            f"{', '.join(unknown)}; name them alike beside both"
        )
    if len(wanted) > IGNORED:
        raise ShardError(f"wanted up to {IGNORED} classes, got {len(wanted)}")
    numbers_of = {name: number for number, name in enumerate(wanted)}
    numbers = {value: numbers_of.get(name, IGNORED) for value, name in enumerate(names)}
    colours = {colour: numbers_of.get(name, IGNORED) for colour, name in by_colour.items()}
    if not colours:
        colours = {palette_colour(value): number for value, number in numbers.items()}
    return wanted, Coding(numbers | {IGNORED: IGNORED}, colours)


def _values_in(pairs: Sequence[MaskedImage]) -> set[int]:
    """All values in the files of labels."""
    with ThreadPoolExecutor(available_cores()) as pool:
        parts = pool.map(_values_of, (pair.labels for pair in pairs))
        return set[int]().union(*parts)


def _values_of(file: Path) -> set[int]:
    """The values in a file of labels."""
    return values_in(_read(file), str(file))


def _candidate(path: Path) -> Candidate:
    """A file as what may be a sample."""
    return Candidate(str(path), path.name, size=path.stat().st_size)


def _read(file: Path) -> bytes:
    """The bytes of a file.

    Raises:
        ShardError: It cannot be read.
    """
    try:
        return storage.read_bytes(file)
    except OSError as error:
        raise ShardError(f"cannot read {file}: {error.strerror or error}") from error
