"""Lists of images to learn from: which images of a set their names are.

A list is a text with a name in each line, such as SimCLR's of ImageNet, perhaps with a label behind
it, or a table. Its labels are not read: those of the set count.
"""

import itertools
from pathlib import Path, PurePosixPath
import numpy as np
import shards
from care.errors import CareError
from care.evaluate.images import Rows
from shards import ShardError, storage
from shards.images import SUFFIXES
from shards.sample_names import Match, SampleNames
from shards.sources.rows import read_rows

_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")


def listed(data: shards.ShardSet, path: str | Path) -> tuple[Rows, list[str]]:
    """Numbers of the images that a list names, and the names that are not in the set.

    A name with a folder, such as ``ash/0001.jpg``, is the image of that name in that folder. A name
    without one, or if no name of the list has a folder of the set, is matched by its stem, as
    SimCLR's lists of ImageNet need it: ``n01440764_10026.JPEG`` is the sample whose key ends so.

    Args:
        data: set of the images.
        path: text file, or a URL of one, with a name in each line, perhaps with a label behind it;
            or a table, of which the column counts that names most images.

    Returns:
        Row numbers, ascending, and the names of no image, in the order of the file.

    Raises:
        CareError: the file cannot be read, it names no image of the set, or a name that several
            images have.
    """
    names = SampleNames(data)
    readings = _read_names(path)
    # one column is that of the names: of a text the first one is all of each line
    columns = [[row[number] for row in readings] for number in range(len(readings[0]))]
    matches = [{name: names.match(name) for name in column} for column in columns]
    best = max(matches, key=_evidence)
    has_folders = any(match.in_folder for match in best.values())
    rows_of_names = dict[str, list[int]]()
    for name, match in best.items():
        is_elsewhere = has_folders and not match.in_folder and _has_folder(name)
        rows_of_names[name] = [] if is_elsewhere else match.rows
    for name, rows in rows_of_names.items():
        if len(rows) > 1:
            raise CareError(
                f"{path} names {name}, but {data.path} has {len(rows)} images of that name, such "
                f"as {data.keys[rows[0]]} and {data.keys[rows[1]]}; write the folder before it"
            )
    chosen = sorted(set(itertools.chain.from_iterable(rows_of_names.values())))
    if not chosen:
        raise CareError(
            f"none of the {len(best)} names in {path} is an image of {data.path}; the list is of "
            f"another set: it has {next(iter(best))}, the set {data.keys[0]}"
        )
    missing = [name for name, rows in rows_of_names.items() if not rows]
    if _is_table(path) and missing and missing[0] == next(iter(best)):
        missing.pop(0)  # the head
    return np.array(chosen, np.int64), missing


def _evidence(matches: dict[str, Match]) -> tuple[int, int, int]:
    """How well a column names images: in their folders, with their suffixes, at all."""
    named = {name: match for name, match in matches.items() if match.rows}
    in_folder = sum(match.in_folder for match in named.values())
    with_suffix = sum(PurePosixPath(name).suffix.lower() in SUFFIXES for name in named)
    return in_folder, with_suffix, len(named)


def _has_folder(name: str) -> bool:
    return "/" in name or "\\" in name


def _is_table(path: str | Path) -> bool:
    return str(path).lower().endswith(_TABLES)


def _read_names(path: str | Path) -> list[list[str]]:
    """The cells of a table, or of each line of a text all of it and all but its last word.

    Raises:
        CareError: the file cannot be read, or has no line.
    """
    try:
        if _is_table(path):
            cells = read_rows(storage.locate(path)).cells
            width = max((len(row) for row in cells), default=0)
            rows = [[*row, *[""] * (width - len(row))] for row in cells]
        else:
            lines = [line.strip() for line in storage.read_bytes(path).decode().splitlines()]
            rows = [[line, _without_last_word(line)] for line in lines if line]
    except (OSError, UnicodeDecodeError, ShardError) as error:
        raise CareError(f"cannot read the list {path}: {error}") from None
    if not rows:
        raise CareError(f"wanted a name of an image in each line of {path}, got no line")
    return rows


def _without_last_word(line: str) -> str:
    """What is before the label of a line, or all of a line that is one word."""
    words = line.replace(",", " ").split()
    return line[: line.rindex(words[-1])].rstrip(" \t,") if len(words) > 1 else line
