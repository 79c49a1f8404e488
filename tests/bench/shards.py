"""Shard building, reading and opening beside webdataset and wids (nox -s bench -- shards).

The builds are those of ``tests.bench.builds``, with --before beside another checkout. The reads are
interleaved in one process: 5,000 JPEGs of about 90 KB in ten classes, all in the page cache. The
opening is of a set of 1.3 million samples.
"""

import argparse
import sys
import tempfile
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
from shards.records import Records
from shards.sources import Source
from tests.bench import builds
from tests.bench.timing import interleaved, show

COUNT, ROUNDS, MANY = 5_000, 3, 1_300_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    builds.compare(parser.parse_args().before)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        builds.lay_out(builds.COMMON, folder / "images", COUNT)
        shards.build(folder / "images", folder / "set")
        read(folder)
        opened(folder)


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
    commit(plan, folder / "many", Records(folder / "many"), max_rejects=0, began=0)
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
