"""A tar written in large pieces, hashed on its way, so that nobody has to read it again."""

import hashlib
import tarfile
from typing import IO

_PIECE = 1 << 20  # bytes that are written at a time
_BLOCK = tarfile.BLOCKSIZE
# tarfile's own header, in which the name, the size and the checksum are put: no time, no owner; in
# GNU's form, for names of any length and alphabet
_BLANK = tarfile.TarInfo().tobuf(tarfile.GNU_FORMAT)
_NAME_BYTES = 100
_MODE_AND_OWNER = _BLANK[100:124]
_TIME = _BLANK[136:148]
_KIND_AND_REST = _BLANK[156:]
# the checksum counts its own field as spaces
_SUM_OF_REST = sum(_MODE_AND_OWNER) + sum(_TIME) + sum(_KIND_AND_REST) + 8 * ord(" ")
_LARGEST_SIZE = 8**11 - 1


class TarWriter:
    """A tar in the making. Equal members in equal order give equal bytes.

    Args:
        file: is written from where it is, and not closed.

    Attributes:
        size: how many bytes the tar has so far.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.size = 0
        self._file = file
        self._digest = hashlib.sha256()
        self._pending = list[bytes]()
        self._pending_size = 0

    def append(self, name: str, data: bytes) -> int:
        """Append a member without time and owner.

        Args:
            name: its path in the tar.
            data: its bytes.

        Returns:
            Where its data begin in the tar.
        """
        header = _header(name, len(data))
        offset = self.size + len(header)
        padding = -len(data) % _BLOCK
        self._pending += (header, data, bytes(padding))
        length = len(header) + len(data) + padding
        self.size += length
        self._pending_size += length
        if self._pending_size >= _PIECE:
            self._write_pending()
        return offset

    def finish(self) -> str:
        """Write the end of the tar.

        Returns:
            The sha256 of all of it, in hex.
        """
        end = 2 * _BLOCK
        end += -(self.size + end) % tarfile.RECORDSIZE
        self._pending.append(bytes(end))
        self.size += end
        self._write_pending()
        return self._digest.hexdigest()

    def _write_pending(self) -> None:
        piece = b"".join(self._pending)
        self._pending.clear()
        self._pending_size = 0
        self._digest.update(piece)
        self._file.write(piece)


def _header(name: str, size: int) -> bytes:
    """What ``tarfile`` writes before the data of a member, which takes it ten times as long."""
    name_field = name.encode("utf-8", "surrogateescape")
    if len(name_field) > _NAME_BYTES or size > _LARGEST_SIZE:
        info = tarfile.TarInfo(name)
        info.size = size
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    size_field = b"%011o\0" % size
    checksum = b"%06o\0 " % (_SUM_OF_REST + sum(name_field) + sum(size_field))
    name_field = name_field.ljust(_NAME_BYTES, b"\0")
    return b"".join((name_field, _MODE_AND_OWNER, size_field, _TIME, checksum, _KIND_AND_REST))
