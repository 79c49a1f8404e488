"""Images that show several classes each, of tables, of COCO JSON, Pascal VOC or shard sets.

A class of an image is present, absent, or undecided: then nothing is learned of it there, and
nothing scored. Which classes there are, the list says; of two lists that belong together the first.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shards import boxes, storage
from shards.errors import ShardError
from shards.label_tables import read_label_table
from shards.listed_images import ListedImages, listed_files
from shards.pixel_report import PixelReport
from shards.rejects import Reject, Rejection, group_by_reason
from shards.sources.annotated import read_annotations
from shards.sources.annotations import Annotations
from shards.sources.candidates import Candidate
from shards.sources.label_columns import RowLabels
from shards.sources.rows import is_table

PRESENT = 1
ABSENT = 0
UNDECIDED = -1

Targets = NDArray[np.int8]


class Images(Protocol):
    """Images by number."""

    @property
    def pixels(self) -> PixelReport:
        """How they became 8 bits of red, green and blue."""

    def image(self, number: int) -> Image.Image:
        """Decode one: RGB, upright."""


class MultiLabelSet(NamedTuple):
    """Images, and which classes they show.

    Attributes:
        path: of what says the classes.
        classes: their names.
        keys: the names of the images [n].
        targets: ``PRESENT``, ``ABSENT`` or ``UNDECIDED`` [n, classes].
        images: the images by number.
        rejects: what was left out, by reason.
        digest: equal for equal images and classes.
        notes: how a table was read, one line each.
    """

    path: Path
    classes: tuple[str, ...]
    keys: tuple[str, ...]
    targets: Targets
    images: Images
    rejects: Mapping[str, Sequence[str]]
    digest: str
    notes: Sequence[str] = ()

    def image(self, number: int) -> Image.Image:
        """Decode an image: RGB, upright.

        Raises:
            ShardError: It cannot be read, or does not decode.
        """
        return self.images.image(number)


def load(
    data: str | Path,
    *,
    classes: Sequence[str] | None = None,
    image_root: str | Path | None = None,
    columns: Sequence[str] = (),
) -> MultiLabelSet:
    """The images of a list, and which classes each of them shows.

    Args:
        data: a table, of which ``docs/data.md`` says what its columns may be; or what
            ``shards.boxes.load`` takes, also a COCO JSON without boxes.
        classes: their names, in this order; others are left out. By default all of the list's.
        image_root: the folder of the images, where they are not found around a table or a COCO
            JSON; of a table also a shard set that has them, or a folder of such sets.
        columns: the names of a table's columns of the image and of the classes.

    Raises:
        ShardError: It is none of these, damaged, or none of its images is there.
    """
    path = storage.locate(data)
    if is_table(data):
        table = read_label_table(path, image_root=image_root, columns=columns)
        names = table.classes if classes is None else tuple(classes)
        data_of_table = _assembled(path, table.rows, names, table.images, table.rejects)
        return data_of_table._replace(notes=table.notes)
    if columns:
        raise ShardError(
            f"wanted a table whose columns are called {', '.join(columns)}, got {data}; leave "
            "--columns out"
        )
    if boxes.is_annotated_set(path):
        return of_boxes(boxes.load(data, classes=classes, image_root=image_root))
    annotations = read_annotations(path, image_root=image_root)
    if annotations is None:
        raise ShardError(
            f"wanted a table of images and classes, a COCO JSON, a VOC list "
            f"(ImageSets/Main/train.txt) or shards of one, got {data}; {_advice(path)}"
        )
    if annotations.is_labels:
        return _of_categories(annotations, classes)
    return of_boxes(
        boxes.load(data, classes=classes, image_root=image_root, annotations=annotations)
    )


def _advice(path: Path) -> str:
    """What to do with what says no classes."""
    if not path.exists():
        return "nothing is there: check the path"
    if (path / "index.json").is_file():
        return (
            "a shard set has one class an image: name the table of the classes, and this set by "
            "--image-root"
        )
    lists = sorted(str(name) for name in path.glob("**/ImageSets/Main/*.txt"))
    tables = sorted(str(name) for name in path.glob("*.csv"))
    files = [*tables, *lists][:6]
    return f"name one of its lists: {', '.join(files)}" if files else "it has no such list"


def of_boxes(data: boxes.BoxSet) -> MultiLabelSet:
    """The classes of annotated images: those of their boxes.

    A class is present where one of its objects is not difficult, be it a crowd; where all of them
    are, it is undecided.

    Args:
        data: the images.
    """
    targets = np.full((len(data.pictures), len(data.classes)), ABSENT, np.int8)
    for row, picture in enumerate(data.pictures):
        targets[row, picture.labels[picture.difficult]] = UNDECIDED
        targets[row, picture.labels[~picture.difficult]] = PRESENT
    return MultiLabelSet(
        path=data.path,
        classes=data.classes,
        keys=tuple(picture.path.name for picture in data.pictures),
        targets=targets,
        images=data,
        rejects=data.rejects,
        digest=data.digest,
    )


def _of_categories(annotations: Annotations, classes: Sequence[str] | None) -> MultiLabelSet:
    """The classes of a COCO JSON whose annotations have no boxes."""
    rows = list[RowLabels]()
    files = list[Candidate]()
    for image in annotations.images:
        categories = frozenset(annotated.category for annotated in image.objects)
        rows.append(RowLabels(image.path.name, categories))
        size = image.path.stat().st_size
        files.append(Candidate(str(image.path), image.path.name, size=size))
    names = tuple(dict.fromkeys(annotations.classes if classes is None else classes))
    return _assembled(annotations.path, rows, names, listed_files(files), annotations.rejects)


def _assembled(
    path: Path,
    rows: Sequence[RowLabels],
    classes: tuple[str, ...],
    images: ListedImages,
    rejects: Sequence[Rejection],
) -> MultiLabelSet:
    """The set of some rows and their images; classes that do not count are among the rejects."""
    numbers = {name: number for number, name in enumerate(classes)}
    targets = np.full((len(rows), len(classes)), ABSENT, np.int8)
    unknown = list[Rejection]()
    for labels, of_row in zip(rows, targets, strict=True):
        of_row[[numbers[name] for name in labels.undecided if name in numbers]] = UNDECIDED
        of_row[[numbers[name] for name in labels.present if name in numbers]] = PRESENT
        for name in sorted(labels.present - numbers.keys()):
            unknown.append(Rejection(Reject.UNKNOWN_CATEGORY, f"{labels.name}: {name}"))
    keys = tuple(labels.name for labels in rows)
    parts = zip(keys, images.contents, targets.tolist(), strict=True)
    digests = [storage.digest(part) for part in parts]  # one text of all would fill the memory
    return MultiLabelSet(
        path=path,
        classes=classes,
        keys=keys,
        targets=targets,
        images=images,
        rejects=group_by_reason([*rejects, *unknown]),
        digest=storage.digest([classes, *digests]),
    )
