"""A shard set read by number (one positioned read, checked) or streamed, through a cache if remote, and the order it is trained in."""

import fcntl
import os
import tempfile
import zlib
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shards import storage
from shards.errors import ShardError
from shards.images import decode
from shards.index import Index, Shard, load

BLOCK = 16  # runs whose samples are shuffled among each other


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


class Sample(NamedTuple):
    """One sample: the image file as it was found by the build, and its class number or -1."""

    key: str
    data: bytes
    label: int


class ShardSet:
    """The samples of a set by number; safe to share between threads, to fork and to pickle."""

    def __init__(self, index: Index, cache: Cache) -> None:
        self.index, self._cache = index, cache
        self.path, self.classes, self.keys, self.digest = (
            index.path,
            index.classes,
            index.keys,
            index.digest,
        )
        self.labels: NDArray[np.int32] = np.ascontiguousarray(
            index.samples["label"]
        )  # [count]: positions in ``classes``, -1: none
        self.run = max(
            shard.nsamples for shard in index.shards
        )  # length of the longest, for ``step_ids``

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Sample:
        """Sample ``i``, from the end if negative; a ``ShardError`` if it cannot be read, or its bytes are not those that were written."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"wanted sample {i} of a set of {len(self)}")
        number = i % len(self)
        offset, length, crc32, label, _ = self.index.samples[number].item()
        shard = self.index.shards[int(np.searchsorted(self.index.starts, number, "right")) - 1]
        at = f"sample {number} ({(key := self.keys[number])!r}) of {self.path}/{shard.url}"
        try:  # opening a file a read costs microseconds beside the decode; kept ones outgrow the process limit at ImageNet's size
            with self.opened(shard) as file:
                data = os.pread(file.fileno(), length, offset)
        except OSError as error:
            raise ShardError(
                f"cannot read {at}: {error.strerror or error}; is the set still there?"
            ) from error
        if len(data) != length or zlib.crc32(data) != crc32:
            got = f"{len(data)} bytes with crc32 {zlib.crc32(data):08x}, wanted {length} with {crc32:08x}"
            raise ShardError(f"{at} is damaged: {got}; verify the set, then copy or build it again")
        return Sample(key, data, label)

    def opened(self, shard: Shard) -> IO[bytes]:
        """A shard's file, unbuffered, of an object store's the copy in the cache; ``OSError`` or ``ShardError``."""
        name = f"{self.path}/{shard.url}"
        return os.fdopen(
            self._cache.open(name, shard)
            if storage.is_remote(name)
            else os.open(name, os.O_RDONLY),
            "rb",
            0,
        )

    def image(self, i: int) -> Image.Image:
        """Sample ``i`` decoded: RGB, upright; errors as of ``self[i]``, and a ``ShardError`` if the bytes do not decode."""
        key, data, _ = self[i]
        try:
            return decode(data)
        except ShardError as error:
            raise ShardError(f"sample {key!r} of {self.path}: {error}") from error

    def __repr__(self) -> str:
        return f"ShardSet({str(self.path)!r}: {len(self):,} samples, {len(self.classes)} classes, {len(self.index.shards)} shards)"


def open(path: str | Path, cache: Cache | None = None) -> ShardSet:
    """The finished set in the folder or at the URL ``path``, its shards kept in ``cache`` if remote; a ``ShardError`` if none is whole."""
    return ShardSet(load(path), cache or Cache())


def stream(data: ShardSet) -> Any:
    """A ``webdataset.DataPipeline`` of dicts of bytes, ``__key__``, ``jpg`` (or another suffix), ``cls``; its order is webdataset's."""
    import webdataset  # it imports torch, which this package does without

    shards, tars = {shard.url: shard for shard in data.index.shards}, webdataset.tariterators
    opened = webdataset.map(lambda source: {**source, "stream": data.opened(shards[source["url"]])})
    stages = (
        webdataset.split_by_node,
        webdataset.split_by_worker,
        opened,
        tars.tar_file_expander,
        tars.group_by_keys,
    )
    return webdataset.DataPipeline(webdataset.SimpleShardList([*shards]), *stages)


class Step(NamedTuple):
    """One global batch: ``ids`` are sample numbers ``[batch_size]``, in batch order."""

    epoch: int
    ids: NDArray[np.int64]

    def of_rank(self, rank: int, world: int) -> NDArray[np.int64]:
        """The slice of process ``rank`` of ``world``: equal parts, in batch order, or a ``ShardError``."""
        if len(self.ids) % world:
            raise ShardError(
                f"cannot cut batches of {len(self.ids)} into {world} equal parts; use a multiple of {world}"
            )
        return np.split(self.ids, world)[rank]


def permutation(count: int, *, seed: int, stream: int, block: int = 0) -> NDArray[np.int64]:
    """A random order ``[count]`` of ``range(count)`` for every (seed, stream, block); stream 0 is the build's, e + 1 that of epoch e."""
    # numpy promises the bits of raw Philox words for ever, Generator.permutation's not
    return np.argsort(_words(count, seed, stream, block), kind="stable")


def step_ids(count: int, *, batch_size: int, step: int, seed: int, run: int = 1000) -> Step:
    """The epoch and the samples of global batch ``step`` (from 0): pure, so the same on every rank and after every restart.

    Every epoch is a permutation of the ``count`` samples cut into ``count // batch_size`` batches for all ranks together; it leaves out
    up to ``batch_size - 1`` samples, others each epoch. It shuffles runs of ``run`` neighbours, such as shards, then the samples in blocks
    of ``BLOCK`` runs: remote sets are read shard by shard, in constant memory. Too few samples: ``ShardError``.
    """
    if not 0 < batch_size <= count or step < 0 or run < 1:
        raise ShardError(
            f"wanted batch {step} of {batch_size} samples, got a set of {count}; use a batch size from 1 to {count}"
        )
    epoch, at = divmod(step, count // batch_size)
    first, last, size = at * batch_size, (at + 1) * batch_size, BLOCK * run
    final = max(-(-(count // run) // BLOCK) - 1, 0)
    blocks = range(min(first // size, final), min((last - 1) // size, final) + 1)
    parts = [
        _block(count, seed, epoch, run, block)[max(first - block * size, 0) : last - block * size]
        for block in blocks
    ]
    return Step(epoch, np.concatenate(parts))


@lru_cache(maxsize=4)
def _block(count: int, seed: int, epoch: int, run: int, block: int) -> NDArray[np.int64]:
    if (runs := count // run) <= BLOCK:
        return permutation(count, seed=seed, stream=epoch + 1)
    places = range(block * BLOCK, min((block + 1) * BLOCK, runs))
    *keys, turn = _words(7, seed, epoch + 1, 1 << 63).tolist()
    chosen = sorted(_shuffled(place, runs, keys) for place in places)
    chosen += [runs] if places.stop == runs else []  # what is left over joins the last block
    ids: NDArray[np.int64] = (np.array(chosen)[:, None] * run + np.arange(run)).ravel()
    ids = (ids[ids < count] + turn % runs * run) % count  # others are left over in each epoch
    return ids[permutation(len(ids), seed=seed, stream=epoch + 1, block=block)]


def _words(count: int, seed: int, stream: int, block: int) -> NDArray[np.uint64]:
    return np.random.Philox(key=seed % 2**64 | int(stream) << 64, counter=block << 192).random_raw(
        count
    )


def _shuffled(place: int, count: int, keys: list[int]) -> int:
    # What a random order of range(count) has at ``place``: a Feistel network, walked until it is inside the range.
    half = ((count - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for key in keys:
            mixed = (right ^ key) * 0x9E3779B97F4A7C15 % 2**64
            left, right = (
                right,
                left ^ ((mixed ^ mixed >> 32) * 0xD6E8FEB86659FD93 % 2**64 >> 40) & mask,
            )
        place = left << half | right
        if place < count:
            return place
