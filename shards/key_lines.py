"""The names of a very large set, found by number in the text that lists them.

A hundred million names as Python's or numpy's strings take gigabytes and minutes; as the text that
they are in the set they take a page each that is looked at, which all processes share.
"""

from collections.abc import Iterator
from itertools import islice
from mmap import mmap
from typing import Any, overload
import numpy as np
from numpy.typing import ArrayLike, NDArray

_STRING = np.dtypes.StringDType()
_NEWLINE = 10
_BLOCK = 64 * 1024  # bytes between two places whose line numbers are known
_NAMED = 3  # in a representation


class KeyLines:
    """Lines by number, like a numpy array of strings: by index, slice, numbers or mask.

    Args:
        text: UTF-8, each line with its end; it is kept, and not copied.
    """

    def __init__(self, text: bytes | mmap) -> None:
        self._text = text
        self._bytes = np.frombuffer(text, np.uint8)
        starts = range(0, len(self._bytes), _BLOCK)
        counts = [self._ends_in(start).sum() for start in starts]
        # lines that end before each block, and in all
        self._ended = np.cumsum([0, *counts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ended[-1])

    @overload
    def __getitem__(self, place: int | np.integer[Any]) -> str: ...

    @overload
    def __getitem__(self, place: slice | ArrayLike) -> NDArray[Any]: ...

    def __getitem__(self, place: Any) -> Any:
        """The line of a number, or an array of those of several."""
        if isinstance(place, int | np.integer):
            return self._line(int(place))
        if isinstance(place, slice):
            numbers = np.arange(*place.indices(len(self)))
        else:
            numbers = np.asarray(place)
            if numbers.dtype == bool:
                numbers = np.flatnonzero(numbers)
        return np.array([self._line(number) for number in numbers.tolist()], _STRING)

    def __iter__(self) -> Iterator[str]:
        """The lines in order, of a block at a time."""
        rest = b""
        for start in range(0, len(self._bytes), _BLOCK):
            *lines, rest = (rest + self._text[start : start + _BLOCK]).split(b"\n")
            yield from (line.decode() for line in lines)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All of them, in the memory that this takes."""
        return np.array(self.tolist(), dtype or _STRING)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of the text goes to another process that is not forked."""
        return KeyLines, (self._text[:],)

    def __repr__(self) -> str:
        return f"KeyLines({len(self):,} names: {', '.join(islice(self, _NAMED))}, …)"

    def tolist(self) -> list[str]:
        """All of them, as numpy's arrays give them."""
        return [*self]

    def _line(self, number: int) -> str:
        if not -len(self) <= number < len(self):
            raise IndexError(f"wanted name {number} of {len(self)}")
        number %= len(self)
        start = 0 if number == 0 else self._end(number - 1) + 1
        return self._text[start : self._end(number)].decode()

    def _end(self, number: int) -> int:
        """Where a line's end is in the text."""
        block = int(np.searchsorted(self._ended, number, "right")) - 1
        ends = np.flatnonzero(self._ends_in(block * _BLOCK))
        return block * _BLOCK + int(ends[number - self._ended[block]])

    def _ends_in(self, start: int) -> NDArray[np.bool_]:
        ends: NDArray[np.bool_] = self._bytes[start : start + _BLOCK] == _NEWLINE
        return ends
