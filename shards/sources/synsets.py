"""Numbers of ImageNet's lists as synsets, where a file beside the list says which is which.

There are two numberings. The devkit's, from 1, is in its ``meta.mat`` and in ``map_clsloc.txt``,
and belongs to the list of numbers alone. That of the sorted synsets, from 0, is in
``synset_words.txt`` and the like, and belongs to lists of names and numbers. To take one for the
other would give wrong classes without an error.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from shards import storage
from shards.errors import ShardError

_SYNSET = re.compile(r"n\d{8}")
_SORTED_NAMES = (
    "synset_words.txt",
    "synsets.txt",
    "LOC_synset_mapping.txt",
    "imagenet_lsvrc_2015_synsets.txt",
)


class Synsets(NamedTuple):
    """What a file says of numbers.

    Attributes:
        names: the synset of each number, as it is written.
        notes: what a user might not expect.
    """

    names: Mapping[str, str]
    notes: list[str]


def devkit_synsets(location: Path, numbers: Sequence[str]) -> Synsets:
    """The synsets of numbers of ImageNet's devkit.

    Args:
        location: of the list that has the numbers.
        numbers: of the classes.

    Returns:
        The synsets; none, and why, where no file beside the list says them.

    Raises:
        ShardError: Such a file is none.
    """
    table = _beside(location, ("map_clsloc.txt",))
    if table is not None:
        rows = [line.split() for line in _lines(table)]
        names = {row[1]: row[0] for row in rows if len(row) > 1 and _SYNSET.fullmatch(row[0])}
        return _checked(table, names, numbers)
    meta = _beside(location, ("meta.mat",))
    if meta is None:
        return Synsets({}, [])
    try:
        return _checked(meta, _read_meta(meta), numbers)
    except ImportError:
        note = f"{meta} has the synsets of these numbers, but needs scipy: "
        return Synsets({}, [f"{note}pip install 'care-ssl[imagenet]'"])


def sorted_synsets(location: Path, numbers: Sequence[str]) -> Synsets:
    """The synsets of numbers that are positions, from 0, in a file beside their list.

    Args:
        location: of the list that has the numbers.
        numbers: of the classes.

    Returns:
        The synsets; none where there is no such file, or the classes are no such numbers.
    """
    if not numbers or not all(map(str.isdecimal, numbers)):
        return Synsets({}, [])
    table = _beside(location, _SORTED_NAMES)
    if table is None:
        return Synsets({}, [])
    names = [line.split()[0] for line in _lines(table)]
    if not all(map(_SYNSET.fullmatch, names)):
        return Synsets({}, [])
    return _checked(table, {str(number): name for number, name in enumerate(names)}, numbers)


def _beside(location: Path, names: Sequence[str]) -> Path | None:
    """The first file of some names around a list, or None."""
    folder = location.absolute().parent
    for place in (folder, folder.parent, folder / "data", folder.parent / "data"):
        for name in names:
            if (place / name).is_file():
                return place / name
    return None


def _lines(table: Path) -> list[str]:
    """The lines of a text that have words."""
    try:
        text = storage.read_bytes(table).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ShardError(f"{table} cannot be read: {error}; save it again in UTF-8") from None
    return [line for line in text.splitlines() if line.strip()]


def _read_meta(file: Path) -> dict[str, str]:
    """The synsets in MATLAB's file of the devkit, by their numbers.

    Raises:
        ImportError: There is no scipy.
        ShardError: It is another file.
    """
    from scipy.io import loadmat

    try:
        with storage.nearby(file) as local_file:
            records = loadmat(local_file, squeeze_me=True)["synsets"]
        numbers = [str(number) for number in records["ILSVRC2012_ID"]]
        synsets = [str(name) for name in records["WNID"]]
    except Exception as error:  # scipy's, zlib's, or of another content
        raise ShardError(
            f"{file} is no meta.mat of ImageNet's devkit: {error}; leave it away, or copy it again"
        ) from None
    return dict(zip(numbers, synsets, strict=True))


def _checked(table: Path, names: Mapping[str, str], numbers: Sequence[str]) -> Synsets:
    """What a file says, if it says it of all numbers."""
    missing = sorted({*numbers} - {*names})
    if missing:
        why = f"it has no synset of {', '.join(missing[:3])}"
        return Synsets({}, [f"{table} is not used, the classes stay numbers: {why}"])
    return Synsets(names, [f"the classes are synsets: their numbers are looked up in {table}"])
