"""A shard set read by number (one positioned read, checked), or streamed for ``webdataset``; shards of object stores through a cache."""

import fcntl
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shards import storage
from shards.errors import ShardError
from shards.images import decode
from shards.index import Index, Shard, load


class Cache:
    """Shards in a local ``folder`` (``$CARE_CACHE``, ~/.cache/care/shards), the last used ``limit`` bytes (``$CARE_CACHE_GB``, 100 GB)."""

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
                        storage.fetch(url, Path(part.name))
                    except FileNotFoundError:
                        raise ShardError(f"{url} is not there any more; is the set still there?") from None
                    if (digest := storage.sha256(part.name)) == shard.sha256:
                        os.link(part.name, file)
                        return
        raise ShardError(f"{url} is damaged: sha256 {digest[:12]}…, wanted {shard.sha256[:12]}…; copy or build the set again")


class Sample(NamedTuple):
    """One sample: the image file as it was found by the build, and its class number or -1."""

    key: str
    data: bytes
    label: int


class ShardSet:
    """The samples of a set by number; safe to share between threads, to fork and to pickle.

    ``labels`` are class numbers ``[count]`` (-1: none), positions in ``classes``; ``digest`` identifies the content; ``run`` is the length
    of the longest shard, for ``step_ids``.
    """

    def __init__(self, index: Index, cache: Cache) -> None:
        self.index, self._cache = index, cache
        self.path, self.classes, self.keys, self.digest = index.path, index.classes, index.keys, index.digest
        self.labels: NDArray[np.int32] = np.ascontiguousarray(index.samples["label"])
        self.run, self._starts = max(shard.nsamples for shard in index.shards), index.starts

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Sample:
        """Sample ``i``, from the end if negative; a ``ShardError`` if it cannot be read, or its bytes are not those that were written."""
        try:
            number = range(len(self))[i]
        except IndexError:
            raise IndexError(f"wanted sample {i} of a set of {len(self)}") from None
        offset, length, crc32, label, _ = self.index.samples[number].item()
        shard = self.index.shards[int(np.searchsorted(self._starts, number, "right")) - 1]
        at = f"sample {number} ({(key := self.keys[number])!r}) of {self.path}/{shard.url}"
        try:  # opening a file a read costs microseconds beside the decode; kept ones outgrow the process limit at ImageNet's size
            with self.opened(shard) as file:
                data = os.pread(file.fileno(), length, offset)
        except OSError as error:
            raise ShardError(f"cannot read {at}: {error.strerror or error}; is the set still there?") from error
        if len(data) != length or zlib.crc32(data) != crc32:
            got = f"{len(data)} bytes with crc32 {zlib.crc32(data):08x}, wanted {length} with {crc32:08x}"
            raise ShardError(f"{at} is damaged: {got}; verify the set, then copy or build it again")
        return Sample(key, data, label)

    def opened(self, shard: Shard) -> IO[bytes]:
        """A shard's file, unbuffered, of an object store's the copy in the cache; ``OSError`` or ``ShardError``."""
        name = f"{self.path}/{shard.url}"
        fd = self._cache.open(name, shard) if storage.is_remote(name) else os.open(name, os.O_RDONLY)
        return os.fdopen(fd, "rb", 0)

    def image(self, i: int) -> Image.Image:
        """Sample ``i`` decoded: RGB, upright; errors as of ``self[i]``, and a ``ShardError`` if the bytes do not decode."""
        key, data, _ = self[i]
        try:
            return decode(data)
        except ShardError as error:
            raise ShardError(f"sample {key!r} of {self.path}: {error}") from error

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), self._cache)

    def __repr__(self) -> str:
        return f"ShardSet({str(self.path)!r}: {len(self):,} samples, {len(self.classes)} classes, {len(self.index.shards)} shards)"


def open(path: str | Path, cache: Cache | None = None) -> ShardSet:
    """The finished set in the folder or at the URL ``path``, its shards kept in ``cache`` if remote; a ``ShardError`` if none is whole."""
    return ShardSet(load(path), cache or Cache())


def stream(data: ShardSet) -> Any:
    """A ``webdataset.DataPipeline`` of dicts ``__key__``, ``jpg`` (or another suffix) and ``cls`` where there are labels, all bytes.

    The shards are divided among nodes and loader workers. Append shuffling, decoding and batching with ``.append(webdataset.…)``; this
    order is webdataset's, exact resumption needs ``care.train.batches``.
    """
    import webdataset  # it imports torch, which this package does without

    shards, tars = {shard.url: shard for shard in data.index.shards}, webdataset.tariterators

    def opened(urls: Any) -> Iterator[dict[str, Any]]:
        for source in urls:
            yield {**source, "stream": data.opened(shards[source["url"]])}

    stages = webdataset.split_by_node, webdataset.split_by_worker, opened, tars.tar_file_expander, tars.group_by_keys
    return webdataset.DataPipeline(webdataset.SimpleShardList([*shards]), *stages)
