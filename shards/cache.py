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
    """Shards in a local ``folder`` (``$CARE_CACHE``, ~/.cache/care/shards), the last used ``limit`` bytes (``$CARE_CACHE_GB``, 100 GB)."""

    def __init__(self, folder: str | Path | None = None, limit: int | None = None) -> None:
        self.folder = Path(
            folder or os.environ.get("CARE_CACHE") or "~/.cache/care/shards"
        ).expanduser()
        gigabytes = os.environ.get("CARE_CACHE_GB", "100")
        try:
            self.limit = int(float(gigabytes) * 1e9) if limit is None else limit
        except (ValueError, OverflowError):
            raise ShardError(
                f"wanted a number of gigabytes in CARE_CACHE_GB, got {gigabytes!r}; set it to one such as 100"
            ) from None

    def open(self, url: str, shard: Shard) -> int:
        """A descriptor of the shard at ``url``, fetched if not here; an ``OSError`` or ``ShardError`` if it cannot be, or is another."""
        file = self.folder / f"{shard.sha256}.tar"
        with suppress(FileNotFoundError):
            os.utime(fd := os.open(file, os.O_RDONLY))
            return fd
        if shard.filesize > self.limit:
            raise ShardError(
                f"{url} has {shard.filesize:,} bytes, the cache may have {self.limit:,}; raise CARE_CACHE_GB"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{shard.sha256[:2]}.lock").open("w") as lock:  # at most 256 files
            fcntl.flock(lock, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):  # those who had to wait find it
                return os.open(file, os.O_RDONLY)
            used = []
            for other in self.folder.glob("*.tar"):
                with suppress(FileNotFoundError):
                    used.append((other.stat().st_mtime_ns, other.stat().st_size, other))
            while used and sum(size for _, size, _ in used) + shard.filesize > self.limit:
                used.remove(oldest := min(used))
                oldest[2].unlink(missing_ok=True)  # who reads it keeps it
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".fetch-") as part:
                for _ in range(2):
                    storage.fetch(url, Path(part.name))
                    if (digest := storage.sha256(part.name)) == shard.sha256:
                        os.link(part.name, file)
                        return os.open(
                            part.name, os.O_RDONLY
                        )  # under its own name others may remove it at once
        raise ShardError(
            f"{url} is damaged: sha256 {digest[:12]}…, wanted {shard.sha256[:12]}…; copy or build the set again"
        )
