"""Which annotation and which image belong to a name of a Pascal VOC list.

Tools write a name with a suffix, with a path, or with blanks; ``<filename>`` without a suffix, with
another one, or as the path on another machine. A name is tried as it stands first.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from shards import storage
from shards.errors import ShardError
from shards.images import SUFFIXES
from shards.once import list_deep
from shards.sources.candidates import suffix
from shards.sources.file_names import name_variants, stem_of

# where tools put annotations and images in the folder of a set, VOC's own first
_ANNOTATION_FOLDERS = ("Annotations", "annotations", "annotations/xmls", "xmls", "xml", "labels")
_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "JPGImages", "img", "imgs", "data", "")
_FLAGS = ("-1", "0", "1")  # in lists of one class: not there, difficult, there


class VocFiles(NamedTuple):
    """The annotations and images of a set.

    Attributes:
        annotations: their folder.
        images: the folder of the images.
        xmls: the names of the annotations without ``.xml``, each with its file.
        names: the names of all files in the folder of the images.
        by_stem: the names of images by the name without suffix, then in lower case, then without
            folders.
    """

    annotations: Path
    images: Path
    xmls: dict[str, str]
    names: frozenset[str]
    by_stem: dict[str, str]

    def image_name(self, stem: str, file_name: str) -> str | None:
        """The image of an annotation.

        Args:
            stem: the name of the annotation without its suffix.
            file_name: its ``<filename>``.

        Returns:
            The image's name in the folder of images, or None if none is there.
        """
        if file_name in self.names and stem_of(file_name) == stem:
            return file_name
        for name in (f"{stem}.jpg", file_name):
            if name in self.names:
                return name
        for name in (stem, *name_variants(file_name)):
            if name in self.names and suffix(name) in SUFFIXES:
                return name
            for text in (name, stem_of(name)):
                image = self.by_stem.get(text) or self.by_stem.get(text.lower())
                if image is not None:
                    return image
        return None

    def name_of(self, text: str) -> str | None:
        """The annotation, or else the image, that a text means.

        Args:
            text: a name, perhaps with a suffix or a path.

        Returns:
            Its name without suffix, or None if there is none.
        """
        for variant in name_variants(text):
            for stem in (variant, stem_of(variant), variant.removesuffix(".xml")):
                if stem in self.xmls or stem in self.by_stem:
                    return stem
        return None

    def names_of_lines(self, lines: Sequence[str]) -> list[str]:
        """The names that the lines of a list mean.

        Lists of one class have a flag behind each name, which may itself end as if by a flag: what
        finds more names is right.

        Args:
            lines: without blanks around them.

        Returns:
            Their names without suffix, be they there or not.
        """
        unchanged = [self.name_of(line) for line in lines]
        unflagged = [self.name_of(without_flag(line)) for line in lines]
        first, second = unchanged, unflagged
        if len({*unflagged} - {None}) > len({*unchanged} - {None}):
            first, second = unflagged, unchanged
        return [
            name or other or stem_of(without_flag(line))
            for name, other, line in zip(first, second, lines, strict=True)
        ]


def without_flag(line: str) -> str:
    """A line of a list without the flag at its end."""
    name, _, flag = line.rpartition(" ")
    return name.rstrip() if name.strip() and flag in _FLAGS else line


def files_of_list(path: Path) -> VocFiles:
    """The files around a list.

    Args:
        path: path of a list such as ``ImageSets/Main/train.txt`` below the folder of the set.

    Returns:
        The files.

    Raises:
        ShardError: No folder of annotations is above the list.
    """
    folders = list(path.absolute().parents)[:4]
    for root in folders:
        for name in _ANNOTATION_FOLDERS:
            xmls = _xmls(root / name)
            if xmls:
                image_folder = next(
                    (root / folder for folder in _IMAGE_FOLDERS if _has_images(root / folder)),
                    root / _IMAGE_FOLDERS[0],
                )
                return _gather(root / name, image_folder, xmls)
    raise ShardError(
        f"{path} is no VOC list: wanted a folder {_ANNOTATION_FOLDERS[0]} with .xml files above "
        f"it, found none in {', '.join(map(str, folders))}; check the layout"
    )


def lists_of(folder: Path) -> list[Path]:
    """The lists of a devkit's folder that are of its boxes.

    Args:
        folder: with a folder ``ImageSets``.

    Returns:
        Their paths, sorted.
    """
    root = folder / "ImageSets"
    names = [name for name in list_deep(root) if suffix(name) == ".txt"]
    in_main = [name for name in names if name.startswith("Main/")]
    return [root / name for name in sorted(in_main or names)]


def files_of_folder(folder: Path) -> VocFiles | None:
    """The files of a set without lists, as Kaggle, Roboflow and Label Studio have them.

    Args:
        folder: with ``.xml`` files beside the images, or with a folder of each.

    Returns:
        The files, or None if these are no annotations of images there.
    """
    inside = [] if storage.is_remote(folder) else list(folder.iterdir())
    if len(inside) == 1 and inside[0].is_dir():  # a wrapper
        return files_of_folder(inside[0])
    for annotation_name in ("", *_ANNOTATION_FOLDERS):
        xmls = _xmls(folder / annotation_name, deep=bool(annotation_name))
        if not xmls or not _is_annotation(folder / annotation_name / min(xmls.values())):
            continue
        image_names = _IMAGE_FOLDERS if annotation_name else ("",)
        for image_name in image_names:
            files = _gather(
                folder / annotation_name, folder / image_name, xmls, deep=bool(image_name)
            )
            if any(stem in files.by_stem for stem in xmls):
                return files
    return None


def _gather(
    annotations: Path, images: Path, xmls: dict[str, str], *, deep: bool = True
) -> VocFiles:
    """The files of the two folders of a set."""
    names = frozenset(_listing(images, deep=deep))
    image_names = sorted(name for name in names if suffix(name) in SUFFIXES)
    by_stem = dict[str, str]()
    for name in image_names:
        by_stem.setdefault(stem_of(name), name)
    for name in image_names:
        by_stem.setdefault(stem_of(name).lower(), name)
    for name in image_names:
        by_stem.setdefault(stem_of(name).rpartition("/")[2], name)
    return VocFiles(annotations, images, xmls, names, by_stem)


def _xmls(folder: Path, *, deep: bool = True) -> dict[str, str]:
    """The annotations in a folder by their names without suffix."""
    names = _listing(folder, deep=deep)
    return {name[: -len(".xml")]: name for name in names if suffix(name) == ".xml"}


def _listing(folder: Path, *, deep: bool) -> Mapping[str, int]:
    return list_deep(folder) if deep else storage.listing(folder)


def _has_images(folder: Path) -> bool:
    return any(suffix(name) in SUFFIXES for name in list_deep(folder))


def _is_annotation(file: Path) -> bool:
    """Whether an XML file says what is on an image."""
    try:
        return ElementTree.fromstring(storage.read_bytes(file)).tag == "annotation"
    except (OSError, ValueError, LookupError, ElementTree.ParseError):
        return False
