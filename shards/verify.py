"""The full audit of a set: every byte of every shard against the index, and the index against the tars' own headers."""

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from shards import storage
from shards.errors import ShardError
from shards.index import Index, Shard, load
from shards.sources import stem


def verify(path: str | Path) -> list[str]:
    """One line for every problem of the set at ``path``; an empty list means intact. Reads everything twice."""
    try:
        index = load(path, shards=False)
    except ShardError as error:
        return [str(error)]
    foreign = storage.listing(index.path).keys() - {shard.url for shard in index.shards}
    problems = [f"{name}: not in the index" for name in sorted(foreign) if name.endswith(".tar")]
    for shard, first in zip(index.shards, index.starts, strict=False):
        problems += [f"{shard.url}: {problem}" for problem in _problems(index, shard, int(first))]
    return problems


def _problems(index: Index, shard: Shard, first: int) -> Iterator[str]:
    members: dict[str, list[tarfile.TarInfo]] = {}
    try:
        with storage.nearby(index.path / shard.url) as file:
            if (size := file.stat().st_size) != shard.filesize:
                yield f"{size} bytes, wanted {shard.filesize}"
            elif storage.sha256(file) != shard.sha256:
                yield "sha256 differs from the index"
            try:
                with tarfile.open(file, "r:") as tar:
                    for info in tar:
                        members.setdefault(stem(info.name), []).append(info)
            except (tarfile.TarError, ValueError) as error:
                yield f"is not a whole tar: {error}"
            rows = index.samples[first : first + shard.nsamples].tolist()
            for number, (offset, length, crc32, label, _) in enumerate(rows, first):
                key = index.keys[number]
                sample = f"sample {number} ({key!r})"
                if key not in members:
                    yield f"{sample}: not in the tar"
                    continue
                image, *extra = members.pop(key)
                if (image.offset_data, image.size) != (offset, length):
                    yield f"{sample}: at byte {image.offset_data} with {image.size}, wanted {offset} with {length}"
                if zlib.crc32(storage.read_bytes(file, offset, offset + length)) != crc32:
                    yield f"{sample}: crc32 differs"
                texts = [(info.name, storage.read_bytes(file, info.offset_data, info.offset_data + info.size)) for info in extra]
                if texts != ([(f"{key}.cls", str(label).encode())] if label >= 0 else []):
                    yield f"{sample}: label members {texts}, wanted {label}"
            yield from (f"{key!r}: not in the index" for key in members)
    except (OSError, ShardError) as error:
        yield f"cannot be read: {getattr(error, 'strerror', '') or error}"
