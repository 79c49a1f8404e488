"""Which classes the rows of a table name, where an image may have several of them."""

import ast
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from shards.errors import ShardError
from shards.sources.columns import BLANKS, CLASS_HEADS, ImageColumn, find_image_column
from shards.sources.rows import LIST_SEPARATOR, Rows

# names of columns that hold several classes, in small letters and numbers alone, before others
_LABEL_HEADS = (
    *("findinglabels", "labels", "tags", "classes", "categories", "attributes", "genre"),
    *CLASS_HEADS,
)
# between the classes of a cell whatever is beside them
_SEPARATORS = (LIST_SEPARATOR, "|", ";")
# between them where their parts recur, since names of classes may have these, too
_POSSIBLE_SEPARATORS = (",", " ")
_PRESENT = frozenset({"1", "1.0", "true"})
_ZEROS = frozenset({"0", "0.0", "false"})
_MINUS_ONES = frozenset({"-1", "-1.0"})
_BLANKS = frozenset(blank.lower() for blank in BLANKS)
_FLAGS = _PRESENT | _ZEROS | _MINUS_ONES | _BLANKS


class RowLabels(NamedTuple):
    """The classes of one row.

    Attributes:
        name: of the image.
        present: the classes that it shows.
        undecided: those of which the row says nothing.
    """

    name: str
    present: frozenset[str]
    undecided: frozenset[str] = frozenset()


class LabelTable(NamedTuple):
    """What a table says of its images.

    Attributes:
        rows: one for each image, in the order of the table.
        classes: their names: in the order of their columns, or sorted.
        by_id: whether the names of the images have no suffix.
        notes: what a user might not expect, one line each.
        repeated: names of images that have several rows of flags, of which the first counts.
    """

    rows: list[RowLabels]
    classes: tuple[str, ...]
    by_id: bool
    notes: list[str]
    repeated: list[str]


def read_label_columns(
    location: Path,
    rows: Rows,
    is_there: Callable[[str], bool],
    wanted: Sequence[str] = (),
    place: str = "",
) -> LabelTable:
    """Find the classes of a table, each image of which may have several.

    They are in one column, with ``|`` or ``;`` between them, as a list, or with commas or blanks;
    in the columns behind the image's, as many as it has; in rows of the same image; or each class
    has a column of 1 and 0. -1 stands for 0 where there is no 0. Blanks among 0 and 1 say nothing
    of the class, blanks among 1 alone stand for 0.

    Args:
        location: of the table, for messages.
        rows: its content.
        is_there: whether there is an image of some name or number.
        wanted: the names of the column of the image and of those of the classes, if told.
        place: where images are looked for, for messages.

    Raises:
        ShardError: There are no such columns, or it is not clear what they say.
    """
    table = find_image_column(location, rows, is_there, wanted, place)
    if not table.cells:
        raise ShardError(f"wanted rows of image and classes, got none in {location}")
    if table.has_head and any(any(row[table.named :]) for row in table.cells):
        raise ShardError(
            f"{location} has rows with more cells than its head names; put classes into one cell "
            "with ; between them"
        )
    columns = _class_columns(location, table)
    are_flags = _are_flags(table, columns)
    are_words = len(columns) == 1 or _are_words(table, columns)
    # rows of 1 and 0 that are not as long may be either
    if are_flags == are_words and len(columns) > 1:
        raise _unclear(location, table)
    read = _of_flags(location, table, columns) if are_flags else _of_names(table, columns)
    aside = [
        name
        for number, name in enumerate(table.head)
        if number not in (table.image, *columns) and number < table.named
    ]
    notes = [f"columns left aside: {', '.join(aside)}"] if aside else []
    return read._replace(notes=[*read.notes, *notes])


def _class_columns(location: Path, table: ImageColumn) -> list[int]:
    """The columns that say the classes: those that the user names, or that are called so."""
    if table.chosen:
        return [*table.chosen]
    named = table.best_named(_LABEL_HEADS)
    if named is not None:
        return [named]
    others = table.others
    if not others:
        raise ShardError(
            f"{location}: wanted classes beside the images, got {', '.join(table.head)}; write "
            "them behind the name, as in photo.jpg,cat;dog"
        )
    # a class that no image shows has a column of 0 alone
    flags = [number for number in others if _BLANKS < _values(table, [number]) | _BLANKS <= _FLAGS]
    return flags if table.has_head and len(flags) > 1 else others


def _values(table: ImageColumn, columns: Sequence[int]) -> set[str]:
    """What the cells of columns have, in small letters."""
    return {row[number].lower() for row in table.cells for number in columns}


def _are_flags(table: ImageColumn, columns: Sequence[int]) -> bool:
    """Whether columns have nothing but 1, 0, -1 and blanks.

    A single one of these has the name of a class: in a column "label" they are numbers of classes.
    """
    if len(columns) == 1:
        is_class = table.has_head and not table.is_called(columns[0], _LABEL_HEADS)
        if not is_class:
            return False
    values = _values(table, columns)
    return values <= _FLAGS and bool(values & _PRESENT)


def _are_words(table: ImageColumn, columns: Sequence[int]) -> bool:
    """Whether the cells behind an image are its classes, of which not all rows have as many."""
    return not table.has_head and any(not row[columns[-1]] for row in table.cells)


def _of_flags(location: Path, table: ImageColumn, columns: Sequence[int]) -> LabelTable:
    """The classes of a table that has a column for each.

    Raises:
        ShardError: It has 0 as well as -1, which mean other things in other data sets.
    """
    values = {row[number].lower() for row in table.cells for number in columns}
    if values & _ZEROS and values & _MINUS_ONES:
        raise ShardError(
            f"{location} has 1, 0 and -1: some mean by -1 that a class is absent and by 0 that it "
            "is not sure (Pascal VOC), others the opposite (CheXpert); write 1 and 0, and leave "
            "cells blank of which nobody is sure"
        )
    has_zeros = bool(values & (_ZEROS | _MINUS_ONES))
    classes = tuple(
        table.head[number] if table.has_head else str(position)
        for position, number in enumerate(columns, 1)
    )
    by_name = dict[str, RowLabels]()
    repeated = list[str]()
    for cells in table.cells:
        flags = [cells[number].lower() for number in columns]
        row = _row_of_flags(cells[table.image], dict(zip(classes, flags, strict=True)), has_zeros)
        if row.name in by_name:
            repeated.append(row.name)
        else:
            by_name[row.name] = row
    notes = [_note_on_classes(classes, "each a column")]
    blanks = sum(len(row.undecided) for row in by_name.values())
    if blanks:
        notes.append(f"{blanks:,} cells are blank: neither learned nor scored")
    return LabelTable([*by_name.values()], classes, table.by_id, notes, repeated)


def _row_of_flags(name: str, flags: Mapping[str, str], has_zeros: bool) -> RowLabels:
    """The classes of a row of 1, 0 and blanks.

    Args:
        name: of the image.
        flags: the cells by class.
        has_zeros: whether the table says it where a class is absent, so that blanks say nothing.
    """
    present = frozenset(name for name, flag in flags.items() if flag in _PRESENT)
    absent = frozenset(name for name, flag in flags.items() if flag in _ZEROS | _MINUS_ONES)
    undecided = flags.keys() - present - absent if has_zeros else ()
    return RowLabels(name, present, frozenset(undecided))


def _of_names(table: ImageColumn, columns: Sequence[int]) -> LabelTable:
    """The classes of a table that names them; rows of one image are taken together."""
    cells = [row[number] for row in table.cells for number in columns]
    separator = _separator_of(cells) if len(columns) == 1 else ""
    present = dict[str, set[str]]()
    for row in table.cells:
        names = present.setdefault(row[table.image], set())
        for number in columns:
            names.update(_split(row[number], separator))
    every = {name for names in present.values() for name in names}
    classes = tuple(sorted(every, key=int if all(map(str.isdecimal, every)) else None))
    how = {
        "": "by name",
        LIST_SEPARATOR: "of lists",
        " ": "with blanks between them",
    }.get(separator, f"with {separator} between them")
    rows = [RowLabels(name, frozenset(names)) for name, names in present.items()]
    return LabelTable(rows, classes, table.by_id, [_note_on_classes(classes, how)], [])


def _separator_of(cells: Iterable[str]) -> str:
    """What is between the classes of a cell, "" where each has one at most."""
    texts = {_without_brackets(cell) for cell in cells}
    for separator in _SEPARATORS:
        if any(separator in text for text in texts):
            return separator
    for separator in _POSSIBLE_SEPARATORS:
        parts = {part for text in texts for part in _split(text, separator)}
        if any(separator in text for text in texts) and len(parts) < len(texts - {""}):
            return separator
    return ""


def _split(cell: str, separator: str) -> list[str]:
    """The classes of a cell; of blanks and -1 none."""
    text = _without_brackets(cell)
    parts = text.split(separator) if separator else [text]
    names = [part.strip() for part in parts]
    return [name for name in names if name not in BLANKS and name != "-1"]


def _without_brackets(cell: str) -> str:
    """A cell whose list was written as Python writes one, such as ``['cat', 'dog']``."""
    if not re.fullmatch(r"\[.*\]", cell):
        return cell
    try:
        values = ast.literal_eval(cell)
    except (ValueError, SyntaxError):
        return cell
    return LIST_SEPARATOR.join(map(str, values))


def _note_on_classes(classes: Sequence[str], how: str) -> str:
    """What is said of the classes that a table was read to have."""
    some = ", ".join(classes[:4]) + (", …" if len(classes) > 4 else "")
    return f"{len(classes):,} classes, {how}: {some}"


def _unclear(location: Path, table: ImageColumn) -> ShardError:
    """The error for a table whose columns can be several things."""
    return ShardError(
        f"{location}: wanted a column of classes, or for each class one of 1 and 0, got "
        f"{', '.join(table.head)} with {[*table.cells[0]]}; name the columns by "
        "--columns IMAGE,CLASSES or --columns IMAGE,CLASS,CLASS"
    )
