"""The audit of a shard set: every byte beside what the index says."""

import zlib
from pathlib import Path
from shards import storage
from shards.errors import ShardError
from shards.index import load


def verify(path: str | Path) -> list[str]:
    """One line for every problem of the set at ``path``; an empty list means that each byte is as it was written."""
    try:
        index = load(path, shards=False)
    except ShardError as error:
        return [str(error)]
    foreign = storage.listing(index.path).keys() - {shard.url for shard in index.shards}
    problems = [f"{name}: not in the index" for name in sorted(foreign) if name.endswith(".tar")]
    for shard, first in zip(index.shards, index.starts.tolist(), strict=False):
        try:
            with storage.nearby(index.path / shard.url) as file:
                if (size := file.stat().st_size) == shard.filesize and storage.sha256(
                    file
                ) == shard.sha256:
                    continue
                other = (
                    "sha256 differs from the index"
                    if size == shard.filesize
                    else f"{size} bytes, wanted {shard.filesize}"
                )
                problems.append(f"{shard.url}: {other}")
                for number, (offset, length, crc32, *_) in enumerate(
                    index.samples[first : first + shard.nsamples].tolist(), first
                ):
                    if zlib.crc32(storage.read_bytes(file, offset, offset + length)) != crc32:
                        problems.append(
                            f"{shard.url}: sample {number} ({index.keys[number]!r}): crc32 differs"
                        )
        except (OSError, ShardError) as error:
            problems.append(
                f"{shard.url}: cannot be read: {getattr(error, 'strerror', '') or error}"
            )
    return problems
