"""A tar written once: headers that depend on nothing but names, the place of every member known, a digest on the way."""

import hashlib
import tarfile
from typing import IO


class TarWriter:
    """Appends members to ``file``; equal members give equal bytes (no time, no owner, mode 0644)."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sha256 = file, hashlib.sha256()

    def add(self, name: str, data: bytes) -> int:
        """Append a member and return where its data begin, in bytes."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        # GNU: names of any length and alphabet as raw UTF-8, in the plain header as far as they fit.
        self._put(info.tobuf(tarfile.GNU_FORMAT, "utf-8"), tarfile.BLOCKSIZE)
        offset = self._file.tell()
        self._put(data, tarfile.BLOCKSIZE)
        return offset

    def finish(self) -> tuple[int, str]:
        """Write the end of the archive and return size (bytes) and sha256 of all."""
        self._put(bytes(2 * tarfile.BLOCKSIZE), tarfile.RECORDSIZE)
        return self._file.tell(), self._sha256.hexdigest()

    def _put(self, data: bytes, block: int) -> None:
        for part in (data, bytes(-(self._file.tell() + len(data)) % block)):
            self._sha256.update(part)
            self._file.write(part)
