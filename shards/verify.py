"""The audit of a shard set: every byte is compared with what the index says."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from shards import storage
from shards.errors import ShardError
from shards.index import Index, Shard, read_index


def verify(path: str | Path) -> list[str]:
    """Audit a set.

    Args:
        path: path or URL of the set's folder.

    Returns:
        One line for every problem; an empty list means that each byte is as it was written.
    """
    try:
        index = read_index(path, for_audit=True)
    except ShardError as error:
        return [str(error)]
    names = storage.listing(index.path).keys() - {shard.url for shard in index.shards}
    problems = [f"{name}: not in the index" for name in sorted(names) if name.endswith(".tar")]
    for number in range(len(index.shards)):
        problems += _problems_of_shard(index, number)
    return problems


def _problems_of_shard(index: Index, number: int) -> list[str]:
    """What is wrong with one tar, and if its size or bytes are, with which of its samples."""
    shard = index.shards[number]
    problems = list[str]()
    try:
        with storage.nearby(index.path / shard.url) as file:
            size = file.stat().st_size
            if size != shard.filesize:
                problems.append(f"{shard.url}: {size} bytes, wanted {shard.filesize}")
            elif storage.sha256(file) != shard.sha256:
                problems.append(f"{shard.url}: sha256 differs from the index")
            else:
                return []
            for line in _damaged_samples(index, number, file):
                problems.append(line)
    except (OSError, ShardError) as error:
        reason = getattr(error, "strerror", "") or error
        problems.append(f"{shard.url}: cannot be read: {reason}")
    return problems


def _damaged_samples(index: Index, number: int, file: Path) -> Iterator[str]:
    """A line for each sample that is not as it was written.

    Args:
        index: the index of the set.
        number: which of its shards.
        file: the tar of that shard, or a copy of it.
    """
    shard: Shard = index.shards[number]
    start = int(index.starts[number])
    rows = index.samples[start : start + shard.nsamples].tolist()
    for sample, (offset, length, crc32, *_) in enumerate(rows, start):
        if zlib.crc32(storage.read_bytes(file, offset, offset + length)) != crc32:
            yield f"{shard.url}: sample {sample} ({index.keys[sample]!r}): crc32 differs"
