"""A shard set read by number (sample i is one positioned read, and its bytes are checked), or streamed for ``webdataset``."""

import operator
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
    """The samples of a set by number; safe to share between threads, to fork and to pickle.

    ``labels`` are class numbers ``[count]`` (-1: none), positions in ``classes``; ``digest`` identifies the content; ``run`` is the length
    of the longest shard, for ``step_ids``.
    """

    def __init__(self, index: Index, cache: Cache) -> None:
        self.index, self._cache = index, cache
        self.path, self.classes, self.keys, self.digest = index.path, index.classes, index.keys, index.digest
        self.labels: NDArray[np.int32] = np.ascontiguousarray(index.samples["label"])
        self.run = max(shard.nsamples for shard in index.shards)
        self._starts, self._remote = index.starts, storage.is_remote(index.path)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Sample:
        """Sample ``i``; negative numbers count from the end.

        An ``IndexError`` if there is none, a ``ShardError`` if it cannot be read, or its bytes are not those that were written.
        """
        number = operator.index(i)
        number += len(self) if number < 0 else 0
        if not 0 <= number < len(self):
            raise IndexError(f"wanted sample {i} of a set of {len(self)}")
        offset, length, crc32, label, _ = self.index.samples[number].item()
        shard = self.index.shards[int(np.searchsorted(self._starts, number, "right")) - 1]
        # A descriptor a read costs microseconds beside the decode; kept ones outgrow the process limit at ImageNet's size.
        try:
            fd = self.descriptor(shard)
            try:
                data = os.pread(fd, length, offset)
            finally:
                os.close(fd)
        except OSError as error:
            raise ShardError(f"cannot read {self._at(shard.url, number)}: {error.strerror or error}; is the set still there?") from error
        if len(data) != length or zlib.crc32(data) != crc32:
            got = f"{len(data)} bytes with crc32 {zlib.crc32(data):08x}, wanted {length} with {crc32:08x}"
            raise ShardError(f"{self._at(shard.url, number)} is damaged: {got}; verify the set, then copy or build it again")
        return Sample(self.keys[number], data, label)

    def descriptor(self, shard: Shard) -> int:
        """A file descriptor of a shard, the caller's to close, of an object store's copy in the cache; ``OSError`` or ``ShardError``."""
        if self._remote:
            return self._cache.open(self.path / shard.url, shard)
        return os.open(f"{self.path}/{shard.url}", os.O_RDONLY)

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

    def _at(self, url: str, number: int) -> str:
        return f"sample {number} ({self.keys[number]!r}) of {self.path / url}"


def open(path: str | Path, cache: Cache | None = None) -> ShardSet:
    """The finished set in the folder or at the URL ``path``; its index is verified now, every sample as it is read.

    ``cache`` is where the shards of an object store are kept. A ``ShardError`` tells of no set or a damaged one, see ``index.load``.
    """
    return ShardSet(load(path), cache or Cache())


def stream(data: ShardSet) -> Any:
    """A ``webdataset.DataPipeline`` of dicts ``__key__``, ``jpg`` (or another suffix) and ``cls`` where there are labels, all bytes.

    The shards are divided among nodes and loader workers; those of an object store come through the cache. Append shuffling, decoding
    and batching with ``.append(webdataset.…)``. This order is webdataset's; exact resumption needs ``care.train.batches``.
    """
    import webdataset  # it imports torch, which this package does without

    shards, tars = {shard.url: shard for shard in data.index.shards}, webdataset.tariterators

    def opened(urls: Any) -> Iterator[dict[str, Any]]:
        for source in urls:
            yield {**source, "stream": os.fdopen(data.descriptor(shards[source["url"]]), "rb")}

    stages = webdataset.split_by_node, webdataset.split_by_worker, opened, tars.tar_file_expander, tars.group_by_keys
    return webdataset.DataPipeline(webdataset.SimpleShardList([*shards]), *stages)
