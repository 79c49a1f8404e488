"""The images of a set by the names that lists have for them, with or without folders."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote
from shards.images import SUFFIXES
from shards.reader import ShardSet


class Match(NamedTuple):
    """The images that a name may be.

    Attributes:
        rows: their numbers in the set.
        in_folder: whether they lie in the folder that the name has.
    """

    rows: list[int]
    in_folder: bool


class SampleNames:
    """The images of a set by their names.

    Args:
        data: the set.
    """

    def __init__(self, data: ShardSet) -> None:
        self._by_stem = dict[str, list[int]]()
        self._folders = list[tuple[str, ...]]()
        for row, key in enumerate(data.keys):
            # keys escape dots
            path = PurePosixPath(unquote(key))
            self._by_stem.setdefault(path.name, []).append(row)
            self._folders.append(path.parent.parts)

    def match(self, name: str) -> Match:
        """The images in the folder that a name has, or else those of its file name.

        Args:
            name: with or without folders and the suffix of an image file.
        """
        path = PurePosixPath(name.replace("\\", "/"))
        stems = [path.name]
        if path.suffix.lower() in SUFFIXES:
            stems.append(path.stem)
        alike = [self._by_stem[stem] for stem in stems if stem in self._by_stem]
        folder = path.parent.parts
        for rows in alike:
            inside = [row for row in rows if _agree(folder, self._folders[row])]
            if inside:
                return Match(inside, in_folder=True)
        return Match(alike[0] if alike else [], in_folder=False)

    def has(self, name: str) -> bool:
        """Whether there is an image of that name."""
        return bool(self.match(name).rows)


def _agree(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether of two folders one is the end of the other, and neither is nothing."""
    shared = min(len(first), len(second))
    return shared > 0 and tuple(first[-shared:]) == tuple(second[-shared:])
