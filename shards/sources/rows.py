"""The rows of tables: CSV and its relatives, lists of words, JSON lines, Parquet."""

import csv
import io
import json
from pathlib import Path
from typing import Any, NamedTuple
from shards import storage
from shards.errors import ShardError
from shards.images import SUFFIXES
from shards.sources.candidates import suffix

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".parquet")
# of the first column, where a table has a head
_HEADS = ("path", "url", "file", "image")
# between the values of a list that is in a cell: in no file that people write
LIST_SEPARATOR = "\x1f"
_DELIMITERS = {".csv": ",;\t|", ".tsv": "\t,;|", ".txt": "\t,;|"}


class Rows(NamedTuple):
    """A table as text.

    Attributes:
        head: the names of the columns; [] where nobody has looked for a head in ``cells``.
        cells: the rows, of one width each where the file has one; blanks around cells are gone.
    """

    head: list[str]
    cells: list[list[str]]


def is_table(path: str | Path) -> bool:
    """Whether a source is a table of images, by its name; a ``.txt`` by what is around it."""
    kind = suffix(str(path))
    if kind != ".txt":
        return kind in TABLE_SUFFIXES
    location = storage.locate(path).absolute()
    return location.is_file() and not _is_of_voc(location)


def _is_of_voc(location: Path) -> bool:
    """Whether there are VOC's annotations around a list."""
    around = (location.parent, location.parent.parent, location.parent.parent.parent)
    folders = [folder / name for folder in around for name in ("Annotations", "annotations")]
    return (
        location.parent.name == "Main"
        or any(folder.is_dir() for folder in folders)
        or any(location.parent.glob("*.xml"))
    )


def read_rows(location: Path, *, with_lists: bool = False) -> Rows:
    """Read a table.

    Args:
        location: of the file, whose suffix says what it is.
        with_lists: whether lists of plain values in JSON lines and Parquet are wanted: their cells
            have ``LIST_SEPARATOR`` between the values. Otherwise such columns are left out.

    Raises:
        ShardError: It cannot be read as such a table.
    """
    kind = suffix(location.name)
    try:
        if kind == ".parquet":
            return _read_parquet(location, with_lists)
        text = _decoded(storage.read_bytes(location))
        if kind == ".jsonl":
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
            return _of_records(records, with_lists)
        cells = _split(text, kind)
    except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
        what = "a CSV" if kind == ".csv" else "a table"
        remedy = "save it again in UTF-8" if isinstance(error, UnicodeError) else "check the file"
        raise ShardError(
            f"{location} cannot be read as {what} of image and class: {error}; {remedy}"
        ) from None
    if cells and cells[0][0].lower() in _HEADS:
        return Rows(cells[0], cells[1:])
    return Rows([], cells)


def _decoded(data: bytes) -> str:
    """Text in UTF-8, or in the UTF-16 of spreadsheets."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def _split(text: str, kind: str) -> list[list[str]]:
    """The cells of a text, by the first delimiter that gives all rows one width of two and more.

    Without such, a list is of words, and anything else of commas.
    """
    for delimiter in _DELIMITERS[kind]:
        try:
            rows = _split_by(text, delimiter)
        except csv.Error:
            continue
        widths = {len(row) for row in rows}
        if len(widths) == 1 and widths != {1}:
            return rows
    if kind == ".txt":
        return [_split_words(line) for line in text.splitlines() if line.strip()]
    return _split_by(text, ",")


def _split_by(text: str, delimiter: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text), strict=True, delimiter=delimiter)
    return [[cell.strip() for cell in row] for row in reader if row]


def _split_words(line: str) -> list[str]:
    """The words of a line, but blanks in the name of an image stay."""
    stripped = line.strip()
    if suffix(stripped) in SUFFIXES:
        return [stripped]
    name, *last = stripped.rsplit(None, 1)
    if suffix(name) in SUFFIXES:
        return [name, *last]
    return stripped.split()


def _read_parquet(location: Path, with_lists: bool) -> Rows:
    """The columns of a Parquet file whose values are plain, or lists of such."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise ShardError(
            f"{location} is a Parquet file, which needs pyarrow: pip install 'care-ssl[parquet]'"
        ) from None
    with storage.nearby(location) as file:
        inside = [
            field.name
            for field in parquet.read_schema(file)
            if {"bytes", "path"} == {part.name for part in _parts_of(field.type)}
        ]
        if inside:
            raise ShardError(
                f"{location} has its images inside, in the column {inside[0]}, as Hugging Face's "
                "data sets do; build it from Python by shards.build, see docs/data.md"
            )
        return _of_records(parquet.read_table(file).to_pylist(), with_lists)


def _parts_of(kind: Any) -> list[Any]:
    """The fields of a column's values, if these are records."""
    return [kind.field(number) for number in range(kind.num_fields)]


def _of_records(records: list[dict[str, Any]], with_lists: bool) -> Rows:
    """Records as rows; columns that hold records, bytes or unwanted lists are left out."""
    names = dict.fromkeys(name for record in records for name in record)
    head = [
        name for name in names if all(_is_plain(record.get(name), with_lists) for record in records)
    ]
    return Rows(head, [[_text(record.get(name)) for name in head] for record in records])


def _is_plain(value: Any, with_lists: bool) -> bool:
    """Whether a value of a record can be a cell."""
    if isinstance(value, list):
        return with_lists and all(_is_plain(part, with_lists=False) for part in value)
    return not isinstance(value, (dict, bytes))


def _text(value: Any) -> str:
    """A cell."""
    if isinstance(value, list):
        return LIST_SEPARATOR.join(map(_text, value))
    return "" if value is None else str(value).strip()
