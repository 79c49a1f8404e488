"""Which few labelled images are learned from: a share of every class, or those of a list."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote
import numpy as np
from numpy.typing import NDArray
import shards
from care.errors import CareError
from care.evaluate.images import Rows
from shards import storage
from shards.errors import Misuse
from shards.images import SUFFIXES
from shards.order import permutation
from shards.progress import warn


@dataclass(frozen=True)
class Labels:
    """Which images of a set are learned from, by exactly one of these.

    Attributes:
        fraction: share of every class's labels to learn from.
        names: text file or URL with the names of the images to learn from instead, such as
            SimCLR's lists of ImageNet.
        rows: their numbers in train instead.
    """

    fraction: float | None = None
    names: str | Path | None = None
    rows: Rows | None = None


def stratified(labels: NDArray[np.int32], fraction: float, *, seed: int = 0) -> Rows:
    """Numbers of the images of a part of every class, the same share of each.

    The share is rounded for each class, to at least one image. Of equal seeds a smaller fraction
    is a subset of a larger one.

    Args:
        labels: classes of all images [n]; those below 0 are none and never chosen.
        fraction: share of every class.
        seed: decides which images of a class.

    Returns:
        Positions in ``labels``, ascending.

    Raises:
        Misuse: the fraction is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise Misuse(f"wanted a fraction of the labels above 0 and at most 1, got {fraction}")
    chosen = [np.empty(0, np.int64)]
    for label in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == label)
        count = max(round(len(rows) * fraction), 1)
        order = permutation(len(rows), seed=seed, stream=int(label))
        chosen.append(rows[order[:count]])
    return np.sort(np.concatenate(chosen))


def listed(data: shards.ShardSet, path: str | Path) -> tuple[Rows, list[str]]:
    """Numbers of the images that a list names, and the names that are not in the set.

    A name is matched by its stem, as SimCLR's lists of ImageNet need it: ``n01440764_10026.JPEG``
    is the sample whose key ends so.

    Args:
        data: set of the images.
        path: text file, or a URL of one, with a name in each line.

    Returns:
        Row numbers, ascending, and the names of no image, in the order of the file.

    Raises:
        CareError: the file cannot be read, it names no image of the set, or a stem that several
            images have.
    """
    names = _read_names(path)
    rows_of_stems: dict[str, list[int]] = {}
    for row, key in enumerate(data.keys):
        # keys escape dots
        stem = unquote(PurePosixPath(key).name)
        rows_of_stems.setdefault(stem, []).append(row)
    rows_of_names = {name: _rows_of(name, rows_of_stems) for name in names}
    for name, rows in rows_of_names.items():
        if len(rows) > 1:
            raise CareError(
                f"{path} names {name}, but {data.path} has {len(rows)} images of that name"
            )
    chosen = sorted(set(itertools.chain.from_iterable(rows_of_names.values())))
    if not chosen:
        raise CareError(
            f"none of the {len(names)} names in {path} is an image of {data.path}; "
            "the list is of another set"
        )
    missing = [name for name, rows in rows_of_names.items() if not rows]
    return np.array(chosen, np.int64), missing


def _read_names(path: str | Path) -> list[str]:
    """The lines of a file that are not empty, without the spaces around them."""
    try:
        lines = storage.read_bytes(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CareError(f"cannot read the list {path}: {error}") from None
    stripped = [line.strip() for line in lines]
    return [line for line in stripped if line]


def _rows_of(name: str, rows_of_stems: dict[str, list[int]]) -> list[int]:
    """Rows of the images that are called so, with or without the suffix of an image file."""
    path = PurePosixPath(name)
    names = [path.name]
    if path.suffix.lower() in SUFFIXES:
        names.append(path.stem)
    for candidate in names:
        if candidate in rows_of_stems:
            return rows_of_stems[candidate]
    return []


def labelled_rows(data: shards.ShardSet, labels: Labels, *, seed: int) -> Rows:
    """Numbers of the images to learn from.

    What is missing is said on the terminal.

    Args:
        data: set of the images.
        labels: which of its labels are used.
        seed: of ``stratified``.

    Raises:
        Misuse: not exactly one field of ``labels`` is there.
        CareError: the list is none of this set.
    """
    choices = (labels.fraction, labels.names, labels.rows)
    if sum(choice is not None for choice in choices) != 1:
        raise Misuse(
            "wanted the images to learn from as one of fraction and names, such as "
            "--fraction 0.1 or --list NAMES.txt"
        )
    if labels.fraction is not None:
        rows = stratified(data.labels, labels.fraction, seed=seed)
    elif labels.names is not None:
        rows, missing = listed(data, labels.names)
        if missing:
            _note(
                f"{len(missing):,} names of {labels.names} are not in {data.path}, such as "
                f"{missing[0]}"
            )
    else:
        rows = np.asarray(labels.rows)
    _note_absent_classes(data, data.labels[rows].tolist())
    return rows


def _note_absent_classes(data: shards.ShardSet, labels: Sequence[int]) -> None:
    absent = sorted(set(range(len(data.classes))) - set(labels))
    if absent:
        example = data.classes[absent[0]]
        _note(f"{len(absent)} classes have no labelled image, such as {example}")


def _note(text: str) -> None:
    warn(text)
