"""Which file of labels belongs to which image: of VOC's lists, of Cityscapes, of two folders."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from shards import storage
from shards.errors import ShardError
from shards.images import SUFFIXES
from shards.once import list_deep
from shards.rejects import Reject, Rejection
from shards.sources.candidates import suffix
from shards.sources.file_names import stem_of

_IMAGE_FOLDERS = ("JPEGImages", "images", "imgs", "img", "image", "img_dir")
# the first of those that have most of a list's names counts; trainaug's are in the second
_MASK_FOLDERS = (
    *("SegmentationClass", "SegmentationClassAug", "SegmentationClassPNG", "SegmentationClassRaw"),
    *("masks", "mask", "labels", "label", "annotations", "ann_dir"),
)
_MASK_SUFFIXES = frozenset((".png", ".tif", ".tiff", ".bmp", ".gif", ".pgm"))
# what tools put behind an image's name to call its mask
_MASK_ENDINGS = ("_mask", "_masks", "_labels", "_label", "_seg", "_L")
_CITY_IMAGES, _CITY_MASKS = "leftImg8bit", "gtFine"
_CITY_ENDING = "_gtFine_labelIds"
_LEVELS = 4  # folders above a list in which the images are looked for


class MaskedImage(NamedTuple):
    """An image and its labels.

    Attributes:
        name: of the image, below the folder of all.
        image: its file.
        labels: the file with a class for each pixel.
    """

    name: str
    image: Path
    labels: Path


class MaskListing(NamedTuple):
    """The images of a list or a folder that have labels.

    Attributes:
        pairs: sorted by name, of a list in its order.
        rejects: images without labels, and labels without an image.
        folders: where a list of the classes may be, the nearest first.
        style: whose names and numbers the classes have, "" where the folder says them.
    """

    pairs: list[MaskedImage]
    rejects: list[Rejection]
    folders: list[Path]
    style: str = ""


def list_masks(path: Path) -> MaskListing | None:
    """The images and labels of a list or a folder.

    Args:
        path: a list such as ``VOC2012/ImageSets/Segmentation/train.txt``, or one of an image and a
            mask a line; Cityscapes' ``leftImg8bit/train``; a folder with ``images`` and ``masks``,
            or the part of one, ``images/train``; or one folder of both, ``a.jpg`` and ``a.png``.

    Returns:
        Them, or None if it is something else.

    Raises:
        ShardError: It is such a list, and no folder of masks is above it.
    """
    if path.is_file():
        return _of_list(path) if path.suffix.lower() in (".txt", ".csv", ".tsv") else None
    listing = None
    for images, masks in _folder_pairs(path):
        listing = _of_folders(images, masks)
        if listing.pairs:
            return listing._replace(folders=[path, masks, *masks.parents[:2]])
    of_one_folder = _beside(path)
    return of_one_folder if of_one_folder.pairs else listing


def _of_list(path: Path) -> MaskListing:
    """The images that a list names."""
    text = storage.read_bytes(path).decode("utf-8-sig", errors="replace")
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in dict.fromkeys(lines) if line]
    folders = [*path.absolute().parents][:_LEVELS]
    columns = [line.replace(",", " ").replace("\t", " ").split() for line in lines]
    if columns and all(len(of_line) == 2 and suffix(of_line[1]) for of_line in columns):
        return _of_columns(columns, folders)
    for root in folders:
        masks = [root / name for name in _MASK_FOLDERS if (root / name).is_dir()]
        images = [root / name for name in _IMAGE_FOLDERS if (root / name).is_dir()]
        if masks and images:
            return _of_names(lines, images[0], masks, folders)
    raise ShardError(
        f"wanted a list of images with a folder SegmentationClass or masks above it, got {path}; "
        f"looked in {', '.join(map(str, folders))}; check the layout, or write lines of an image "
        "and its mask"
    )


def _of_columns(columns: Sequence[Sequence[str]], folders: Sequence[Path]) -> MaskListing:
    """The images of a list that has an image and its mask in each line."""
    pairs = []
    rejects = []
    for image_name, mask_name in columns:
        image = _in_any(folders, image_name)
        labels = _in_any(folders, mask_name)
        if image is None:
            rejects.append(Rejection(Reject.NO_IMAGE, image_name))
        elif labels is None:
            rejects.append(Rejection(Reject.NO_ANNOTATION, mask_name))
        else:
            pairs.append(MaskedImage(image_name.lstrip("/"), image, labels))
    return MaskListing(pairs, rejects, [*folders])


def _in_any(folders: Sequence[Path], name: str) -> Path | None:
    """A file by its name in the first of some folders that has it."""
    for folder in folders:
        file = folder / name.lstrip("/")
        if file.is_file():
            return file
    return None


def _of_names(
    lines: Sequence[str], images: Path, mask_folders: Sequence[Path], folders: list[Path]
) -> MaskListing:
    """The images of a list of names."""
    names = [line if suffix(line) not in SUFFIXES else stem_of(line) for line in lines]
    image_files = _by_stem(images, SUFFIXES)
    masks_in = [_masks_of(folder, names) for folder in mask_folders]
    counts = [sum(name in files for name in names) for files in masks_in]
    best = counts.index(max(counts))
    pairs = []
    rejects = []
    for name in names:
        if name not in image_files:
            rejects.append(Rejection(Reject.NO_IMAGE, name))
        elif name not in masks_in[best]:
            rejects.append(Rejection(Reject.NO_ANNOTATION, name))
        else:
            labels = mask_folders[best] / masks_in[best][name]
            pairs.append(MaskedImage(name, images / image_files[name], labels))
    style = "voc" if mask_folders[best].name.startswith("SegmentationClass") else ""
    return MaskListing(pairs, rejects, folders, style)


def _folder_pairs(path: Path) -> Iterator[tuple[Path, Path]]:
    """The folders of images and of labels that a folder may mean."""
    for images in _IMAGE_FOLDERS:
        for masks in _MASK_FOLDERS:
            if (path / images).is_dir() and (path / masks).is_dir():
                yield path / images, path / masks
    for folder in [path, *path.parents][:_LEVELS]:
        rest = str(path)[len(str(folder)) :].lstrip("/")
        if folder.name == _CITY_IMAGES:
            yield path, folder.parent / _CITY_MASKS / rest
        if folder.name in _IMAGE_FOLDERS:
            for masks in _MASK_FOLDERS:
                if (folder.parent / masks / rest).is_dir():
                    yield path, folder.parent / masks / rest


def _of_folders(images: Path, masks: Path) -> MaskListing:
    """The images of one folder whose labels are in another."""
    is_city = masks.name == _CITY_MASKS or masks.parent.name == _CITY_MASKS
    image_files = _by_stem(images, SUFFIXES)
    if is_city:
        image_files = {
            stem.removesuffix(f"_{_CITY_IMAGES}"): name for stem, name in image_files.items()
        }
    mask_files = _city_masks(masks) if is_city else _masks_of(masks, image_files)
    pairs = []
    rejects = []
    for stem, name in image_files.items():
        if stem in mask_files:
            pairs.append(MaskedImage(name, images / name, masks / mask_files[stem]))
        else:
            rejects.append(Rejection(Reject.NO_ANNOTATION, name))
    for stem, name in mask_files.items():
        if stem not in image_files:
            rejects.append(Rejection(Reject.NO_IMAGE, name))
    style = "cityscapes" if is_city else ""
    if masks.name.startswith("SegmentationClass"):
        style = "voc"
    return MaskListing(pairs, rejects, [], style)


def _beside(path: Path) -> MaskListing:
    """The images of a folder whose labels are among them: a.jpg, and a.png or a_mask.png."""
    names = sorted(list_deep(path))
    stems = {stem_of(name): name for name in names if suffix(name) in (".jpg", ".jpeg")}
    if not stems:
        every = {stem_of(name): name for name in names if suffix(name) in SUFFIXES}
        stems = {stem: name for stem, name in every.items() if _without_ending(stem) not in every}
    every_name = {*names}
    pairs = []
    for stem, name in stems.items():
        for candidate in (stem, *(stem + ending for ending in _MASK_ENDINGS)):
            files = [f"{candidate}{end}" for end in sorted(_MASK_SUFFIXES)]
            labels = [file for file in files if file in every_name and file != name]
            if labels:
                pairs.append(MaskedImage(name, path / name, path / labels[0]))
                break
    used = {str(file) for pair in pairs for file in (pair.image, pair.labels)}
    images = [name for name in names if suffix(name) in SUFFIXES]
    rejects = [
        Rejection(Reject.NO_ANNOTATION, name) for name in images if str(path / name) not in used
    ]
    return MaskListing(pairs, rejects, [path, *path.absolute().parents[:1]])


def _by_stem(folder: Path, suffixes: frozenset[str]) -> dict[str, str]:
    """The files of a folder by their names without suffix, sorted; the first of a name counts."""
    files = dict[str, str]()
    for name in sorted(list_deep(folder)):
        if suffix(name) in suffixes:
            files.setdefault(stem_of(name), name)
    return files


def _masks_of(folder: Path, stems: Collection[str]) -> dict[str, str]:
    """The masks of a folder by the names of their images without suffix.

    Args:
        folder: of the masks.
        stems: names of images; what is called like none of them is tried without what tools append.
    """
    masks = dict[str, str]()
    for stem, name in _by_stem(folder, _MASK_SUFFIXES).items():
        plain = _without_ending(stem)
        is_appended = stem not in stems and plain in stems
        masks.setdefault(plain if is_appended else stem, name)
    return masks


def _without_ending(stem: str) -> str:
    """A name without what tools put behind it, "" of a name that has no such ending."""
    return next((stem[: -len(end)] for end in _MASK_ENDINGS if stem.endswith(end)), "")


def _city_masks(folder: Path) -> dict[str, str]:
    """The masks of ids of a folder of Cityscapes by the names of their images."""
    files = _by_stem(folder, _MASK_SUFFIXES)
    return {
        stem.removesuffix(_CITY_ENDING): name
        for stem, name in files.items()
        if stem.endswith(_CITY_ENDING)
    }
