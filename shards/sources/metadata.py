"""The ``metadata`` tables that Hugging Face's imagefolder reads: they lie among the images."""

from collections.abc import Collection
from typing import NamedTuple
from shards import storage
from shards.sources.columns import class_column
from shards.sources.rows import Rows, read_rows

_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_IMAGE_COLUMN = "file_name"


class Metadata(NamedTuple):
    """What such tables say.

    Attributes:
        class_names: the class of each image that has one, by its path in the source.
        files: the tables that were read.
        notes: what a user might not expect.
    """

    class_names: dict[str, str]
    files: list[str]
    notes: list[str]


def read_metadata(root: str, names: Collection[str]) -> Metadata:
    """Read the tables in a folder of images.

    Args:
        root: path or URL of the folder.
        names: of the files in it, at any depth.

    Returns:
        What they say; nothing of tables without a column ``file_name``.

    Raises:
        ShardError: A table cannot be read.
    """
    metadata = Metadata({}, [], [])
    for table in sorted(name for name in names if name.rpartition("/")[2] in _NAMES):
        folder = table.removesuffix(table.rpartition("/")[2])
        rows = _with_first_as_head(read_rows(storage.locate(f"{root}/{table}")))
        if _IMAGE_COLUMN not in rows.head:
            continue
        metadata.files.append(table)
        image = rows.head.index(_IMAGE_COLUMN)
        classes = class_column(rows, image)
        images = [folder + row[image] for row in rows.cells]
        if classes is None:
            metadata.notes.append(f"{table} has no column of classes")
            continue
        missing = sum(name not in names for name in images)
        if missing:
            metadata.notes.append(f"{missing:,} images of {table} are not there")
        for name, class_name in zip(images, classes, strict=True):
            if class_name is not None:
                metadata.class_names[name] = class_name
    return metadata


def _with_first_as_head(rows: Rows) -> Rows:
    if rows.head or not rows.cells:
        return rows
    return Rows(rows.cells[0], rows.cells[1:])
