"""What a shard set is: tars as WebDataset reads them (``key.jpg``, and ``key.cls`` with the label), and what is in them.

``samples.npy`` has a ``ROW`` and ``keys.txt`` a line for every sample, in the order of the tars; ``annotations.json`` may have their boxes.
``index.json``, committed last, holds the rest and all digests; the ``wids`` package reads it as its shard index.
"""

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shards import storage
from shards.errors import ShardError

SCHEMA = 2
# Where a sample's bytes are in its tar, how many, their checksum, its class number (-1: none), its EXIF orientation (0: not looked at)
ROW = np.dtype([("offset", "<u8"), ("length", "<u4"), ("crc32", "<u4"), ("label", "<i4"), ("orientation", "u1")])


class Shard(NamedTuple):
    """One tar: ``url`` is relative to the set, ``filesize`` in bytes."""

    url: str
    nsamples: int
    filesize: int
    sha256: str


class Keys:
    """Sample names by number, kept as one text: a million ``str`` would cost every worker 100 MB."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i: int) -> str:
        end = int(self._ends[i])
        return self._text[self._text.rfind(b"\n", 0, end) + 1 : end].decode()

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True, eq=False)
class Index:
    """The content of a set.

    ``samples`` are ``ROW`` ``[count]``, ``rejects`` the files left out, by reason, ``seen`` the number of both. ``plan`` is a digest of
    the input's names and sizes and of the options, ``sha256`` are the side files' and ``digest`` is ``index.json``'s: the set's identity.
    """

    path: Path
    shards: tuple[Shard, ...]
    samples: NDArray[Any]
    keys: Keys
    classes: tuple[str, ...]
    seen: int
    rejects: Mapping[str, Sequence[str]]
    plan: str
    seed: int
    sha256: Mapping[str, str]
    digest: str

    @property
    def starts(self) -> NDArray[np.int64]:
        """Number of the first sample of every shard, and the count: ``[shards + 1]``."""
        return np.cumsum([0, *(shard.nsamples for shard in self.shards)])


def save(
    path: Path, *, shards: Sequence[Shard], samples: NDArray[Any], keys: Sequence[str], classes: Sequence[str],
    rejects: Mapping[str, Sequence[str]], plan: str, seed: int, annotations: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Commit an index, ``index.json`` last: from then on the set exists. Equal input gives equal bytes."""
    np.save(rows := io.BytesIO(), samples)
    sides = {"samples.npy": rows.getvalue(), "keys.txt": "".join(f"{key}\n" for key in keys).encode()}
    if annotations:
        sides["annotations.json"] = json.dumps(annotations, sort_keys=True).encode()
    for name, data in sides.items():
        storage.write_bytes(path / name, data)
    rejected = {reason: len(names) for reason, names in rejects.items()}
    shardlist = [shard._asdict() for shard in shards]
    document = {
        "__kind__": "wids-shard-index-v1", "wids_version": 1, "schema": SCHEMA, "plan": plan, "seed": seed,
        "name": storage.digest(shardlist)[:16],  # wids caches by name: other content needs another one
        "shardlist": shardlist, "classes": classes, "rejects": rejects,
        "counts": {"seen": len(samples) + sum(rejected.values()), "kept": len(samples), "rejected": rejected},
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in sides.items()},
    }  # fmt: skip
    storage.write_json(path / "index.json", document | {"own": storage.digest(document)})


def load(path: str | Path, *, shards: bool = True) -> Index:
    """The index in the folder ``path``, checked; without ``shards``, as an audit wants it, not the tars' sizes but the annotations."""
    root = storage.locate(path).absolute()
    file, sizes = root / "index.json", storage.listing(root)
    if "index.json" not in sizes:
        unfinished = any(name.startswith(".shard-") for name in sizes)
        got = "an unfinished one; run its build again, it goes on where it stopped" if unfinished else "no index.json; check the path"
        raise ShardError(f"wanted a shard set at {path}, got {got}")
    document, text = storage.read_json(file), storage.read_bytes(file)
    if not isinstance(document, dict) or not isinstance(schema := document.get("schema"), int):
        raise ShardError(f"{file} is not the index of a shard set; check the path")
    if schema != SCHEMA:
        reads = f"up to {SCHEMA}; upgrade care-ssl" if schema > SCHEMA else f"{SCHEMA}; build the set again"
        raise ShardError(f"{file} has schema {schema}, this version reads {reads}")
    try:
        names = ["samples.npy", "keys.txt", *(() if shards else {"annotations.json"} & document["sha256"].keys())]
        sides = {name: storage.read_bytes(root / name) for name in names}
        for name, data in sides.items():
            _require(hashlib.sha256(data).hexdigest() == document["sha256"][name], f"{name} is not the file that was written")
        index = Index(
            path=root, shards=tuple(Shard(**shard) for shard in document["shardlist"]), classes=tuple(document["classes"]),
            samples=np.load(io.BytesIO(sides["samples.npy"])), keys=Keys(sides["keys.txt"]), seen=document["counts"]["seen"],
            rejects=document["rejects"], plan=document["plan"], seed=document["seed"], sha256=document["sha256"],
            digest=hashlib.sha256(text).hexdigest(),
        )  # fmt: skip
        own = storage.digest({name: value for name, value in document.items() if name != "own"})
        _require(own == document["own"] and text == storage.as_json(document), "index.json is not the file that was written")
        count = len(index.samples)
        _require(index.samples.dtype == ROW and count == len(index.keys) == index.starts[-1], "its sample counts differ")
        _require(index.seen == count + sum(map(len, index.rejects.values())), "seen is not kept + rejected")
        for shard in index.shards if shards else ():
            _require(sizes.get(shard.url) == shard.filesize, f"{shard.url} does not have its {shard.filesize} bytes")
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ShardError(f"the shard set {path} is damaged: {error}; copy it again, or remove it and build it again") from error
    return index


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def stem(name: str) -> str:
    """WebDataset's key of a tar member: its path up to the first dot of its file name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


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
