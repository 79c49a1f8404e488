"""Which column of a table names the image, and which its class."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from shards.errors import ShardError
from shards.images import SUFFIXES
from shards.sources.candidates import is_link, suffix
from shards.sources.rows import Rows

_SAMPLE = 200  # rows that columns are judged by
# heads without anything but letters and numbers, the most telling first
_IMAGE_HEADS = (
    *("filename", "filepath", "filepaths", "imagepath", "imagename", "imagefilename", "path"),
    *("file", "image", "img", "images", "url", "imageurl", "imageid", "id", "name", "uuid"),
)
CLASS_HEADS = (
    *("label", "labels", "class", "classname", "labelname", "category", "categoryname", "target"),
    *("breed", "species", "diagnosis", "wnid", "synset", "predictionstring"),
    *("classid", "labelid", "categoryid", "y"),
)
_INDEX_HEADS = ("", "index", "idx", "unnamed0", "indexlevel0", "row")
_PART_HEADS = ("split", "set", "dataset", "fold", "partition", "subset", "usage")
BLANKS = ("", "nan", "NaN", "<NA>")


class Columns(NamedTuple):
    """What the columns of a table mean.

    Attributes:
        names: of the images.
        classes: of the images, None of those without.
        by_id: whether the names have no suffix.
        notes: what a user might not expect.
    """

    names: list[str]
    classes: list[str | None]
    by_id: bool
    notes: list[str]


class ImageColumn(NamedTuple):
    """A table of which the column of the images is known.

    Attributes:
        head: the names of all columns, "column 3" of one without.
        cells: the rows, of that width.
        image: the number of the column of the images.
        by_id: whether their names have no suffix.
        named: how many of the columns the table itself names: the first ones, or none.
        chosen: the numbers of the other columns that the user names.
    """

    head: list[str]
    cells: list[list[str]]
    image: int
    by_id: bool
    named: int
    chosen: tuple[int, ...] = ()

    @property
    def has_head(self) -> bool:
        """Whether the table itself names its columns."""
        return self.named > 0

    @property
    def others(self) -> list[int]:
        """The numbers of the columns that may say classes: no row numbers, no parts of a set."""
        others = [number for number in range(len(self.head)) if number != self.image]
        if len(others) > 1:
            others = [
                number for number in others if not _is_index(self.head[number], self.cells, number)
            ]
        if len(others) > 1:
            others = [number for number in others if _plain(self.head[number]) not in _PART_HEADS]
        return others

    def best_named(self, heads: Sequence[str]) -> int | None:
        """The column whose name is the first in a list, None where no name is in it.

        Args:
            heads: of small letters and numbers alone.
        """
        ranked = [
            (_rank(name, heads), number)
            for number, name in enumerate(self.head)
            if number != self.image
        ]
        rank, number = min(ranked, default=(len(heads), 0))
        return number if rank < len(heads) else None

    def is_called(self, number: int, heads: Sequence[str]) -> bool:
        """Whether a column has a name of a list, of small letters and numbers alone."""
        return _plain(self.head[number]) in heads


def read_columns(
    location: Path,
    rows: Rows,
    is_there: Callable[[str], bool],
    wanted: Sequence[str] = (),
    place: str = "",
) -> Columns:
    """Find the columns of a table.

    Args:
        location: of the table, for messages.
        rows: its content.
        is_there: whether there is an image of some name or number.
        wanted: the names of the column of the image and, perhaps, of the class.
        place: where images are looked for, for messages.

    Raises:
        ShardError: There are none, or it is not clear which they are.
    """
    table = find_image_column(location, rows, is_there, wanted, place)
    if not table.cells:
        return Columns([], [], by_id=False, notes=[])
    rest = [*table.chosen] if wanted else _class_columns(location, table)
    head = table.head
    names = [row[table.image] for row in table.cells]
    notes = list[str]()
    if len(head) > 2:
        labels = ", ".join(head[number] for number in rest[:3]) or "none"
        notes.append(
            f"the images are those of the column {head[table.image]}, their classes: {labels}"
        )
    if len(rest) > 1:
        classes_of_rows = _from_one_hot(location, head, table.cells, rest)
        return Columns(names, classes_of_rows, table.by_id, notes)
    classes = [row[rest[0]] for row in table.cells] if rest else [""] * len(table.cells)
    return Columns(names, _class_names(classes), table.by_id, notes)


def find_image_column(
    location: Path,
    rows: Rows,
    is_there: Callable[[str], bool],
    wanted: Sequence[str] = (),
    place: str = "",
) -> ImageColumn:
    """Find the head of a table and its column of images.

    Args:
        location: of the table, for messages.
        rows: its content.
        is_there: whether there is an image of some name or number.
        wanted: the names of the column of the image and, perhaps, of others.
        place: where images are looked for, for messages.

    Returns:
        The rows, of one width; none of an empty table.

    Raises:
        ShardError: There is none of images, or no column of a wanted name.
    """
    table = _with_head(rows, is_there)
    if not table.cells:
        return ImageColumn([], [], 0, by_id=False, named=0)
    width = max(map(len, table.cells))
    head = table.head + [f"column {number + 1}" for number in range(len(table.head), width)]
    cells = [row + [""] * (width - len(row)) for row in table.cells]
    named = len(table.head)
    if wanted:
        image, *chosen = (_number(location, head, name) for name in wanted)
        by_id = not any(_is_image_name(row[image]) for row in cells)
        return ImageColumn(head, cells, image, by_id, named, tuple(chosen))
    image, by_id = _image_column(location, head, cells, is_there, place)
    return ImageColumn(head, cells, image, by_id, named)


def class_column(rows: Rows, image: int) -> list[str | None] | None:
    """The classes of a table whose columns have names, by these alone.

    Args:
        rows: the table.
        image: the number of the column of the images.

    Returns:
        The classes of the rows, or None if no column is called like one.
    """
    ranked = sorted((_rank(name, CLASS_HEADS), number) for number, name in enumerate(rows.head))
    ranked = [(rank, number) for rank, number in ranked if number != image]
    if not ranked or ranked[0][0] == len(CLASS_HEADS):
        return None
    return _class_names([row[ranked[0][1]] for row in rows.cells])


def _with_head(rows: Rows, is_there: Callable[[str], bool]) -> Rows:
    """The table, its first row as the head if it is one."""
    if rows.head or len(rows.cells) < 2:
        return rows
    first, *others = rows.cells
    if any(_is_image_name(cell) for cell in first):
        return rows
    sample = others[:_SAMPLE]
    named = any(_is_image_name(cell) for row in sample for cell in row)
    has_names = {*map(_plain, first)} & {*_IMAGE_HEADS, *CLASS_HEADS}
    if not named and not has_names and any(map(is_there, first)):
        return rows
    if named or has_names or any(is_there(cell) for row in sample for cell in row):
        return Rows(first, others)
    return rows


def _image_column(
    location: Path,
    head: Sequence[str],
    cells: Sequence[Sequence[str]],
    is_there: Callable[[str], bool],
    place: str,
) -> tuple[int, bool]:
    """The column of the images, and whether its names are without a suffix."""
    sample = cells[:_SAMPLE]
    for by_id, test in ((False, _is_image_name), (True, is_there)):
        scores = [sum(test(row[number]) for row in sample) for number in range(len(head))]
        if max(scores) > 0:
            ranks = [_rank(name, _IMAGE_HEADS) for name in head]
            return min(range(len(head)), key=lambda n: (-scores[n], ranks[n], n)), by_id
    if len(head) == 1 or (len(head) == 2 and suffix(sample[0][0])):
        return 0, False  # files of other kinds
    raise ShardError(
        f"{location}: wanted a column of image files, got {', '.join(head)} with "
        f"{[*sample[0]]}; looked for {' '.join(sorted(SUFFIXES)[:4])} … and for images of such a "
        f"name, with any suffix, {place}. Name the folder of the images by --image-root, or the "
        "columns by --columns IMAGE,CLASS"
    )


def _class_columns(location: Path, table: ImageColumn) -> list[int]:
    """The column of the classes, several of a one-hot table, or none."""
    named = table.best_named(CLASS_HEADS)
    if named is not None:
        return [named]
    others = table.others
    if len(others) < 2:
        return others
    values = {number: {row[number] for row in table.cells} for number in others}
    if table.has_head and all(texts <= {"0", "1", "0.0", "1.0", ""} for texts in values.values()):
        return others
    texts = [number for number in others if not all(map(_is_number, values[number]))]
    if len(texts) == 1:
        return texts
    raise ShardError(
        f"{location}: wanted rows of image and class, got {', '.join(table.head)} with "
        f"{[*table.cells[0]]}; quote names that have commas, or name the columns by "
        "--columns IMAGE,CLASS"
    )


def _from_one_hot(
    location: Path,
    head: Sequence[str],
    cells: Sequence[Sequence[str]],
    numbers: Sequence[int],
) -> list[str | None]:
    """The classes of a table that has a column for each."""
    classes = list[str | None]()
    for row in cells:
        marked = [head[number] for number in numbers if row[number] in ("1", "1.0")]
        if len(marked) > 1:
            raise ShardError(
                f"{location}: wanted one class an image, got {', '.join(marked)} in {[*row]}; "
                "name one column by --columns IMAGE,CLASS, or leave the classes out by --columns "
                "IMAGE; care evaluate multilabel reads several classes an image from such a table"
            )
        classes.append(marked[0] if marked else None)
    return classes


def _class_names(texts: Sequence[str]) -> list[str | None]:
    """The cells of a class column as classes; blanks, and -1 among numbers, are none."""
    plain = [None if text in BLANKS else text for text in texts]
    names = {text for text in plain if text is not None}
    if names and all(re.fullmatch(r"-?\d+\.0", text) for text in names):  # pandas beside blanks
        plain = [text and text[:-2] for text in plain]
        names = {text[:-2] for text in names}
    if all(re.fullmatch(r"-1|\d+", text) for text in names):
        plain = [None if text == "-1" else text for text in plain]
    if all(re.match(r"n\d{8}( |$)", text) for text in names):  # a synset of ImageNet, and boxes
        plain = [text and text[:9] for text in plain]
    return plain


def _number(location: Path, head: Sequence[str], name: str) -> int:
    """Which column is called so; those of a table without a head are called by their numbers."""
    if name in head:
        return head.index(name)
    if name.isdecimal() and 1 <= int(name) <= len(head):
        return int(name) - 1
    raise ShardError(
        f"{location}: wanted a column {name}, got {', '.join(head)}; name one of these, or its "
        "number from 1"
    )


def _is_image_name(cell: str) -> bool:
    return suffix(cell) in SUFFIXES or is_link(cell)


def _is_index(name: str, cells: Sequence[Sequence[str]], number: int) -> bool:
    """Whether a column only counts the rows, as pandas writes it."""
    if _plain(name) not in _INDEX_HEADS:
        return False
    values = [row[number] for row in cells]
    return len({*values}) == len(values) and all(map(str.isdecimal, values))


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?\d*\.?\d*(e[-+]?\d+)?", text) is not None


def _rank(name: str, heads: Sequence[str]) -> int:
    plain = _plain(name)
    return heads.index(plain) if plain in heads else len(heads)


def _plain(name: str) -> str:
    """The name of a column in lower case, of letters and numbers alone."""
    return re.sub(r"[\W_]", "", name.lower())
