"""Shards of an object store on the local disk: whole, checked, shared by all processes, within a limit."""

import fcntl
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from shards.errors import ShardError
from shards.index import Shard
from shards.storage import fetch, sha256


class Cache:
    """Files named by their content, at most ``limit`` bytes of them (by default ``$CARE_CACHE_GB``, or 100 GB), the last used ones.

    They are in ``folder`` on a local disk, by default ``$CARE_CACHE``, or ``~/.cache/care/shards``.
    """

    def __init__(self, folder: str | Path | None = None, limit: int | None = None) -> None:
        self.folder = Path(folder or os.environ.get("CARE_CACHE") or "~/.cache/care/shards").expanduser()
        gigabytes = os.environ.get("CARE_CACHE_GB", "100")
        try:
            self.limit = int(float(gigabytes) * 1e9) if limit is None else limit
        except (ValueError, OverflowError):
            raise ShardError(f"wanted a number of gigabytes in CARE_CACHE_GB, got {gigabytes!r}; set it to one such as 100") from None

    def open(self, url: str, shard: Shard) -> int:
        """A descriptor of the shard at ``url``, fetched if it is not here; a ``ShardError`` if it cannot be, is another, or too large."""
        file = self.folder / f"{shard.sha256}.tar"
        for _ in range(100):
            try:
                os.utime(fd := os.open(file, os.O_RDONLY))
                return fd
            except FileNotFoundError:  # not yet, or another process has just removed it
                self._fill(file, url, shard)
        raise ShardError(f"{self.folder} loses {url} as soon as it is there; raise CARE_CACHE_GB (now {self.limit / 1e9:g})")

    def _fill(self, file: Path, url: str, shard: Shard) -> None:
        if shard.filesize > self.limit:
            raise ShardError(f"{url} has {shard.filesize:,} bytes, the cache may have {self.limit:,}; raise CARE_CACHE_GB")
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{shard.sha256[:2]}.lock").open("w") as lock:  # at most 256 files
            fcntl.flock(lock, fcntl.LOCK_EX)  # the others wait, and find it
            if file.exists():
                return
            used = []
            for other in self.folder.glob("*.tar"):
                with suppress(FileNotFoundError):
                    used.append((other.stat().st_mtime_ns, other.stat().st_size, other))
            while used and sum(size for _, size, _ in used) + shard.filesize > self.limit:
                used.remove(oldest := min(used))
                oldest[2].unlink(missing_ok=True)  # who reads it keeps it
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".fetch-") as part:
                for _ in range(2):
                    try:
                        fetch(url, Path(part.name))
                    except FileNotFoundError:
                        raise ShardError(f"{url} is not there any more; is the set still there?") from None
                    if (digest := sha256(part.name)) == shard.sha256:
                        os.link(part.name, file)
                        return
        raise ShardError(f"{url} is damaged: sha256 {digest[:12]}…, wanted {shard.sha256[:12]}…; copy or build the set again")
