"""Shards of object stores, kept in a local folder while they are used."""

import fcntl
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from shards import storage
from shards.errors import ShardError
from shards.index import Shard


class Cache:
    """A folder of shards, named by their digests, of which those last used stay.

    Processes may share it. A shard that is removed while another process reads it stays readable
    there.

    Args:
        folder: where; by default ``$CARE_CACHE``, else ``~/.cache/care/shards``.
        limit: how many bytes it may hold; by default ``$CARE_CACHE_GB``, else 100 GB.

    Raises:
        ShardError: ``$CARE_CACHE_GB`` is no number.
    """

    def __init__(self, folder: str | Path | None = None, limit: int | None = None) -> None:
        place = folder or os.environ.get("CARE_CACHE") or "~/.cache/care/shards"
        self.folder = Path(place).expanduser()
        gigabytes = os.environ.get("CARE_CACHE_GB", "100")
        try:
            self.limit = int(float(gigabytes) * 1e9) if limit is None else limit
        except (ValueError, OverflowError):
            raise ShardError(
                f"wanted a number of gigabytes in CARE_CACHE_GB, got {gigabytes!r}; "
                "set it to one such as 100"
            ) from None

    def open(self, url: str, shard: Shard) -> int:
        """Open a shard for reading, fetched if it is not here.

        Args:
            url: where it is in the object store.
            shard: what the index says of it.

        Returns:
            A file descriptor, the caller's to close.

        Raises:
            OSError: The folder cannot be written.
            ShardError: The shard cannot be fetched, is another one, or is larger than the limit.
        """
        file = self.folder / f"{shard.sha256}.tar"
        with suppress(FileNotFoundError):
            descriptor = os.open(file, os.O_RDONLY)
            os.utime(descriptor)  # it was used last
            return descriptor
        if shard.filesize > self.limit:
            raise ShardError(
                f"{url} has {shard.filesize:,} bytes, the cache may have {self.limit:,}; "
                "raise CARE_CACHE_GB"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        # by the first two digits: at most 256 lock files
        with (self.folder / f"{shard.sha256[:2]}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):  # another process has fetched it meanwhile
                return os.open(file, os.O_RDONLY)
            self._make_room(shard.filesize)
            return self._fetch(url, shard, file)

    def _make_room(self, size: int) -> None:
        """Remove what was not used for longest until there is room for ``size`` bytes."""
        files = list[tuple[int, int, Path]]()
        for file in self.folder.glob("*.tar"):
            with suppress(FileNotFoundError):  # another process has just removed it
                status = file.stat()
                files.append((status.st_mtime_ns, status.st_size, file))
        files.sort()
        total = sum(file_size for _, file_size, _ in files)
        for _, file_size, file in files:
            if total + size <= self.limit:
                break
            file.unlink(missing_ok=True)
            total -= file_size

    def _fetch(self, url: str, shard: Shard, file: Path) -> int:
        """Copy a shard from its store, at the second attempt if need be, and open the copy."""
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".fetch-") as copy:
            for _ in range(2):
                storage.fetch(url, Path(copy.name))
                digest = storage.sha256(copy.name)
                if digest == shard.sha256:
                    os.link(copy.name, file)
                    # not under its own name, under which another process may remove it at once
                    return os.open(copy.name, os.O_RDONLY)
        raise ShardError(
            f"{url} is damaged: sha256 {digest[:12]}…, wanted {shard.sha256[:12]}…; "
            "copy or build the set again"
        )
