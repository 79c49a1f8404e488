"""Shard building, reading and opening beside webdataset and wids (nox -s bench -- shards).

All are interleaved in one process: 5,000 JPEGs of about 110 KB in ten classes, all in the page
cache, and a set of 1.3 million samples for the opening.
"""

import hashlib
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
import numpy as np
import webdataset
import wids
import shards
from shards import storage
from shards.commit import commit
from shards.index import Shard
from shards.plan import Plan
from shards.sources import Source
from tests.bench.timing import interleaved, show
from tests.bench.views import photograph

COUNT, ROUNDS, MANY = 5_000, 3, 1_300_000


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photographs = [photograph(seed) for seed in range(50)]
        for number in range(COUNT):
            file = folder / "images" / f"class{number % 10}" / f"{number:05}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(photographs[number % 50])
        build(folder)
        read(folder)
        opened(folder)


def build(folder: Path) -> None:
    images = folder / "images"
    files = sorted(images.rglob("*.jpg"))
    labels = {
        name: number for number, name in enumerate(sorted(path.name for path in images.iterdir()))
    }

    def fresh() -> Path:
        shutil.rmtree(folder / "set", ignore_errors=True)
        (folder / "set").mkdir()
        return folder / "set"

    def ours(validate: str, workers: int | None = None) -> Callable[[], object]:
        return lambda: shards.build(images, fresh(), validate=validate, workers=workers)  # type: ignore[arg-type]

    def writer() -> None:
        with webdataset.ShardWriter(f"{fresh()}/%06d.tar", maxcount=1000, verbose=0) as sink:
            for file in files:
                sink.write(
                    {
                        "__key__": file.stem,
                        "jpg": file.read_bytes(),
                        "cls": labels[file.parent.name],
                    }
                )

    def digested_writer() -> None:
        with webdataset.ShardWriter(f"{fresh()}/%06d.tar", maxcount=1000, verbose=0) as sink:
            for file in files:
                zlib.crc32(data := file.read_bytes())
                sink.write({"__key__": file.stem, "jpg": data, "cls": labels[file.parent.name]})
        for tar in (folder / "set").iterdir():
            with tar.open("rb") as opened:
                hashlib.file_digest(opened, "sha256")

    def copy() -> None:
        with (fresh() / "all").open("wb") as sink:
            for file in files:
                sink.write(file.read_bytes())

    work = {
        "webdataset.ShardWriter": writer,
        "ShardWriter, then the same digests": digested_writer,
        "plain byte copy into one file": copy,
        "care --validate none": ours("none"),
        "care --validate none, one thread": ours("none", 1),
        "care --validate header": ours("header"),
        "care --validate decode": ours("decode"),
    }
    size = sum(file.stat().st_size for file in files)
    title = (
        f"building {COUNT:,} files of {size // COUNT // 1000} KB with labels, "
        f"one process, {os.cpu_count()} cores"
    )
    show(
        title,
        interleaved(work, ROUNDS),
        count=COUNT,
        unit="file",
        reference="webdataset.ShardWriter",
    )


def read(folder: Path) -> None:
    data = shards.open(folder / "set")
    theirs = wids.ShardListDataset(
        str(folder / "set" / "index.json"), cache_dir=str(folder / "wids"), keep=True
    )
    shuffled = np.random.default_rng(0).permutation(COUNT).tolist()

    def random(get: Callable[[int], object]) -> Callable[[], object]:
        return lambda: [get(i) for i in shuffled]

    def raw(i: int) -> bytes:
        sample = theirs.get_sample(i) if hasattr(theirs, "get_sample") else theirs[i]
        return sample[".jpg"]

    theirs.transformations = []  # bytes, as ours
    work = {
        "wids, random (nothing checked)": random(raw),
        "care, random": random(data.__getitem__),
        "wids, in order": lambda: [raw(i) for i in range(COUNT)],
        "care, in order": lambda: list(data),
        "webdataset, in order": lambda: list(
            webdataset.WebDataset(
                sorted(map(str, (folder / "set").glob("*.tar"))), shardshuffle=False
            )
        ),
        "care.stream through webdataset": lambda: list(shards.stream(data)),
    }
    show(
        "reading the bytes of a sample, one core, no decoding",
        interleaved(work, ROUNDS),
        count=COUNT,
        unit="sample",
        reference="wids, random (nothing checked)",
    )


def opened(folder: Path) -> None:
    plan = Plan(
        Source([], [], []), None, [[] for _ in range(MANY // 1000)], "decode", 0, None, 90, ""
    )
    for number in range(len(plan.shards)):
        samples = range(number * 1000, (number + 1) * 1000)
        entries = [(0, 0, 0, 0, 1, f"n{n // 1300:08}/n{n // 1300:08}_{n}") for n in samples]
        record = {
            "plan": "",
            "shard": Shard(f"shard-{number:06}.tar", 1000, 0, "0" * 64),
            "entries": entries,
            "rejects": [],
        }
        storage.write_json(folder / "many" / f".shard-{number:06}.json", record)
        (folder / "many" / f"shard-{number:06}.tar").touch()
    commit(plan, folder / "many", max_rejects=0)
    times = interleaved({"care": lambda: shards.open(folder / "many")}, 5)
    bytes_ = {
        name: (folder / "many" / name).stat().st_size
        for name in ("samples.npy", "keys.txt", "index.json")
    }
    show(
        f"opening a set of {MANY:,} samples ({bytes_} bytes)",
        times,
        count=1,
        unit="opening",
        reference="care",
    )


if __name__ == "__main__":
    sys.exit(main())
