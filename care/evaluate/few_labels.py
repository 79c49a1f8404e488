"""Which few labelled images are learned from: a share of every class, or a list of names."""

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


def stratified(labels: NDArray[np.int32], fraction: float, *, seed: int = 0) -> Rows:
    """Row numbers, ascending, of a part of every class, at least one image; of equal seeds a smaller fraction is a subset of a larger one.

    Labels [n] below 0 are none and never chosen. A fraction that is not above 0 and at most 1 is a ``Misuse``.
    """
    if not 0 < fraction <= 1:
        raise Misuse(f"wanted a fraction of the labels above 0 and at most 1, got {fraction}")
    chosen = [np.empty(0, np.int64)]
    for label in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == label)
        chosen.append(
            rows[
                permutation(len(rows), seed=seed, stream=int(label))[
                    : max(round(len(rows) * fraction), 1)
                ]
            ]
        )
    return np.sort(np.concatenate(chosen))


def listed(data: shards.ShardSet, path: str | Path) -> tuple[Rows, list[str]]:
    """Row numbers, ascending, of the images that a text file, or a URL of one, names, one a line, and the names that are not in the set.

    A name is matched by its stem, as SimCLR's lists of ImageNet need it: ``n01440764_10026.JPEG`` is the sample whose key ends so. A file
    that cannot be read, names no image of the set, or a stem that several images have, is a ``CareError``.
    """
    try:
        names = [
            line.strip() for line in storage.read_bytes(path).decode().splitlines() if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise CareError(f"cannot read the list {path}: {error}") from None
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(data.keys):
        rows.setdefault(unquote(PurePosixPath(key).name), []).append(row)  # keys escape dots
    paths = {name: PurePosixPath(name) for name in names}
    found = {
        name: rows.get(p.name) or rows.get(p.stem if p.suffix.lower() in SUFFIXES else p.name, [])
        for name, p in paths.items()
    }
    if several := [name for name, of in found.items() if len(of) > 1]:
        raise CareError(
            f"{path} names {several[0]}, but {data.path} has {len(found[several[0]])} images of that name"
        )
    if not any(found.values()):
        raise CareError(
            f"none of the {len(names)} names in {path} is an image of {data.path}; the list is of another set"
        )
    return np.array(sorted({row for of in found.values() for row in of}), np.int64), [
        name for name, of in found.items() if not of
    ]
