"""A shard set read by number: a sample is one positioned read, and its bytes are checked."""

import os
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, NamedTuple
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shards import storage
from shards.cache import Cache
from shards.errors import ShardError
from shards.images import decode, decode_bands
from shards.index import Index, Shard, read_index
from shards.pixels import channels_of


class Sample(NamedTuple):
    """One sample.

    Attributes:
        key: its name in the set.
        data: the image file as the build found it.
        label: its class number, or -1.
    """

    key: str
    data: bytes
    label: int


class ShardSet:
    """The samples of a set by number.

    It is safe to share between threads, to fork and to pickle.

    Attributes:
        index: what is in the set.
        path: path or URL of its folder.
        classes: the names of the classes.
        keys: the names of the samples [count].
        labels: class numbers [count], positions in ``classes``; -1: none.
        digest: identifies the content.
        longest_shard: number of samples of the longest shard, the run length for ``step_ids``.
    """

    def __init__(self, index: Index, cache: Cache) -> None:
        self.index = index
        self.path = index.path
        self.classes = index.classes
        self.keys = index.keys
        self.digest = index.digest
        self.longest_shard = max(shard.nsamples for shard in index.shards)
        self._cache = cache

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """Class numbers, made when they are first asked for: training does not."""
        return np.ascontiguousarray(self.index.samples["label"])

    def __len__(self) -> int:
        return len(self.index.samples)

    def __getitem__(self, i: int) -> Sample:
        """Read sample ``i``, counted from the end if negative.

        Raises:
            IndexError: There is no sample ``i``.
            ShardError: It cannot be read, or its bytes are not those that were written.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"wanted sample {i} of a set of {len(self)}")
        number = i % len(self)
        key = self.keys[number]
        offset, length, crc32, label, _ = self.index.samples[number].item()
        shard_number = int(np.searchsorted(self.index.starts, number, "right")) - 1
        shard = self.index.shards[shard_number]
        try:
            # opening a file for each read costs microseconds beside the decoding; files that are
            # kept open outgrow the limit of a process at ImageNet's size
            with self.open_shard(shard) as file:
                data = os.pread(file.fileno(), length, offset)
        except OSError as error:
            raise ShardError(
                f"cannot read {self._place(number, shard)}: {error.strerror or error}; "
                "is the set still there?"
            ) from error
        actual_crc32 = zlib.crc32(data)
        if len(data) != length or actual_crc32 != crc32:
            raise ShardError(
                f"{self._place(number, shard)} is damaged: {len(data)} bytes with crc32 "
                f"{actual_crc32:08x}, wanted {length} with {crc32:08x}; "
                "verify the set, then copy or build it again"
            )
        return Sample(key, data, label)

    def _place(self, number: int, shard: Shard) -> str:
        return f"sample {number} ({self.keys[number]!r}) of {self.path}/{shard.url}"

    def open_shard(self, shard: Shard) -> IO[bytes]:
        """Open the tar of a shard, unbuffered.

        Of an object store's tar it is the copy in the cache.

        Raises:
            OSError: A local tar cannot be opened.
            ShardError: A remote one cannot be fetched.
        """
        name = f"{self.path}/{shard.url}"
        if storage.is_remote(name):
            descriptor = self._cache.open(name, shard)
        else:
            descriptor = os.open(name, os.O_RDONLY)
        return os.fdopen(descriptor, "rb", 0)

    @property
    def channels(self) -> int:
        """Of each image: three, or four of a set that was built with four ``bands``."""
        return channels_of(self.index.pixels.rule.get("bands", ()))

    def image(self, i: int) -> Image.Image:
        """Sample ``i`` decoded: RGB, upright; of four bands RGBX.

        Raises:
            IndexError: There is no sample ``i``.
            ShardError: It cannot be read, is damaged, or does not decode.
        """
        key, data, _ = self[i]
        try:
            return decode(data) if self.channels == 3 else decode_bands(data)
        except ShardError as error:
            raise ShardError(f"sample {key!r} of {self.path}: {error}") from error

    def labelled(self) -> "ShardSet":
        """The samples that have a class; the set itself where all have one."""
        rows = np.flatnonzero(self.labels >= 0)
        if len(rows) == len(self):
            return self
        samples = self.index.samples[rows]
        samples["label"] = self.labels[rows]
        starts = np.searchsorted(rows, self.index.starts)
        counts = np.diff(starts).tolist()
        index = self.index._replace(
            shards=tuple(
                shard._replace(nsamples=count)
                for shard, count in zip(self.index.shards, counts, strict=True)
            ),
            samples=samples,
            keys=self.keys[rows],
            classes=self.classes,
            digest=storage.digest([self.digest, rows.tolist()]),
            starts=starts,
        )
        return ShardSet(index, self._cache)

    def with_classes(self, classes: Sequence[str]) -> "ShardSet":
        """The same samples with the class numbers of another set.

        Args:
            classes: their names there; samples of other classes have none, -1.
        """
        if tuple(classes) == self.classes:
            return self
        numbers = {name: number for number, name in enumerate(classes)}
        # the last one is for the label -1
        renumbered = [*(numbers.get(name, -1) for name in self.classes), -1]
        samples = self.index.samples.copy()
        samples["label"] = np.array(renumbered, np.int32)[self.labels]
        return ShardSet(self.index._replace(samples=samples, classes=tuple(classes)), self._cache)

    def __repr__(self) -> str:
        path = str(self.path)
        counts = (
            f"{len(self):,} samples, {len(self.classes)} classes, {len(self.index.shards)} shards"
        )
        return f"ShardSet({path!r}: {counts})"


def unknown_classes(train: ShardSet, val: ShardSet) -> list[str]:
    """The names of the classes that images of val have, but that train does not know."""
    labels = np.unique(val.labels)
    used = [val.classes[label] for label in labels[labels >= 0]]
    return sorted({*used} - {*train.classes})


def open(path: str | Path, cache: Cache | None = None) -> ShardSet:
    """Open a finished set.

    Its index is verified now, every sample as it is read.

    Args:
        path: a folder or a URL.
        cache: where the shards of an object store are kept.

    Returns:
        The set.

    Raises:
        ShardError: There is no set, an unfinished or damaged one, or one of another schema.
    """
    return ShardSet(read_index(path), cache or Cache())
