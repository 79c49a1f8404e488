"""A shard set read by number: one positioned read, checked, through a cache if it is remote."""

import os
import zlib
from pathlib import Path
from typing import IO, NamedTuple
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shards import storage
from shards.cache import Cache
from shards.errors import ShardError
from shards.images import decode
from shards.index import Index, Shard, load


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
