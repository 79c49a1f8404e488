"""What a shard set is: tars as WebDataset reads them (``key.jpg``, and ``key.cls`` with the label), and what is in them.

``samples.npy`` has a ``ROW`` and ``keys.txt`` a line for every sample, in the order of the tars; ``annotations.json`` may have their boxes.
``index.json``, committed last, holds the rest and all digests; the ``wids`` package reads it as its shard index.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
import numpy as np
from numpy.typing import NDArray
from shards import storage
from shards.errors import ShardError

SCHEMA = 2
# Where a sample's bytes are in its tar, how many, their checksum, its class number (-1: none), its EXIF orientation (0: not looked at)
ROW = np.dtype(
    [
        ("offset", "<u8"),
        ("length", "<u4"),
        ("crc32", "<u4"),
        ("label", "<i4"),
        ("orientation", "u1"),
    ]
)


class Shard(NamedTuple):
    """One tar: ``url`` is relative to the set, ``filesize`` in bytes."""

    url: str
    nsamples: int
    filesize: int
    sha256: str


class Index(NamedTuple):
    """The content of a set."""

    path: Path
    shards: tuple[Shard, ...]
    samples: NDArray[Any]  # ``ROW`` [count]
    keys: NDArray[
        Any
    ]  # sample names [count], not as a list: a million ``str`` would cost every worker 100 MB
    classes: tuple[str, ...]
    seen: int  # files, kept or left out
    rejects: Mapping[str, Sequence[str]]  # the files left out, by reason
    plan: str  # a digest of the input's names and sizes and of the options
    seed: int
    sha256: Mapping[str, str]  # of the side files
    digest: str  # of ``index.json``: the set's identity
    starts: NDArray[
        np.int64
    ]  # the number of every shard's first sample, and the count: [shards + 1]


def load(path: str | Path, *, shards: bool = True) -> Index:
    """The index in the folder ``path``, checked; without ``shards``, as an audit wants it, not the tars' sizes but the annotations."""
    root = storage.locate(path).absolute()
    file, sizes = root / "index.json", storage.listing(root)
    if "index.json" not in sizes:
        unfinished = any(name.startswith(".shard-") for name in sizes)
        got = (
            "an unfinished one; run its build again, it goes on where it stopped"
            if unfinished
            else "no index.json; check the path"
        )
        raise ShardError(f"wanted a shard set at {path}, got {got}")
    document, text = storage.read_json(file), storage.read_bytes(file)
    if (schema := document.get("schema") if isinstance(document, dict) else None) != SCHEMA:
        wanted = f"the index of a shard set with schema {SCHEMA}"
        raise ShardError(
            f"{file} is not {wanted}, it has {schema}; check the path, upgrade care-ssl, or build the set again"
        )
    try:
        sides = {
            name: storage.read_bytes(root / name)
            for name in document["sha256"]
            if not shards or name != "annotations.json"
        }
        if other := [
            name
            for name, data in sides.items()
            if hashlib.sha256(data).hexdigest() != document["sha256"][name]
        ]:
            raise ValueError(f"{other[0]} is not the file that was written")
        tars = tuple(Shard(**shard) for shard in document["shardlist"])
        index = Index(
            path=root,
            shards=tars,
            starts=np.cumsum([0, *(shard.nsamples for shard in tars)]),
            seen=document["counts"]["seen"],
            samples=np.load(io.BytesIO(sides["samples.npy"])),
            classes=tuple(document["classes"]),
            keys=np.array(sides["keys.txt"].decode().split("\n")[:-1], np.dtypes.StringDType()),
            digest=hashlib.sha256(text).hexdigest(),
            **{name: document[name] for name in ("rejects", "plan", "seed", "sha256")},
        )
        own = storage.digest({name: value for name, value in document.items() if name != "own"})
        checks = {
            "index.json is not the file that was written": own == document["own"],
            "its sample counts differ": index.samples.dtype == ROW
            and len(index.samples) == len(index.keys) == index.starts[-1],
            "seen is not kept + rejected": index.seen
            == len(index.samples) + sum(map(len, index.rejects.values())),
            **{
                f"{tar.url} does not have its {tar.filesize} bytes": sizes.get(tar.url)
                == tar.filesize
                for tar in tars
                if shards
            },
        }
        if broken := [problem for problem, whole in checks.items() if not whole]:
            raise ValueError(broken[0])
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ShardError(
            f"the shard set {path} is damaged: {error}; copy it again, or remove it and build it again"
        ) from error
    return index


def stem(name: str) -> str:
    """WebDataset's key of a tar member: its path up to the first dot of its file name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]
