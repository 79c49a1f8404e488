"""What the order, the index, the reader and a build cost at a hundred million samples.

``python -m tests.bench.size --json docs/results/reliability/size.json``, then
``python -m tests.size_page``. The set has an index as a build would have left it, tars that are
holes, which read as zeros, and no images. It takes 4 GB of disk for its time. What is asked of an
object store is counted on fsspec's memory filesystem, on a small set. Opening is told with what the
process takes of its own and with the pages of the set's files that it has looked at, which all
processes share.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
import numpy as np
from PIL import Image
import shards
from shards import storage
from shards.cache import Cache
from shards.index import ROW, SCHEMA
from shards.order import step_ids
from shards.plan import make_plan
from shards.records import Entry

SHARD = 1000  # samples
SAMPLE = 4096  # bytes
STRIDE = 5120  # with the header of a tar's member
KEY_DIGITS = 12
BATCH_SIZE = 4096
FIRST_BATCH = 256
FEATURES = 2048
LISTED = 1000  # objects that a store names in an answer


def time_order(count: int, steps: int = 200) -> dict[str, float]:
    """Milliseconds in which the samples of a step are told, in a row and from a new place."""
    rng = np.random.default_rng(0)
    first = int(rng.integers(10**6))
    in_a_row = list[float]()
    for step in range(first, first + steps):
        in_a_row.append(_milliseconds(lambda step=step: _ids(count, step)))
    anew = list[float]()
    for step in rng.integers(100 * count // BATCH_SIZE, size=steps).tolist():
        anew.append(_milliseconds(lambda step=step: _ids(count, step)))
    tracemalloc.start()
    _ids(count, 10**6)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "samples": count,
        "mean_ms": float(np.mean(in_a_row)),
        "anew_ms": float(np.median(anew)),
        "peak_mib": peak / 2**20,
    }


def _ids(count: int, step: int) -> None:
    step_ids(count, batch_size=BATCH_SIZE, step=step, seed=1, run_length=SHARD)


def _milliseconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return 1000 * (time.process_time() - began)


def write_set(folder: Path, count: int) -> None:
    """Write the index of a set of ``count`` samples, and its tars as holes."""
    shard_count = -(-count // SHARD)
    sizes = [min(SHARD, count - SHARD * number) for number in range(shard_count)]
    shardlist = []
    for number, samples in enumerate(sizes):
        name = f"shard-{number:06}.tar"
        with (folder / name).open("wb") as file:
            file.truncate(samples * STRIDE)
        digest = hashlib.sha256(name.encode()).hexdigest()
        entry = {"url": name, "nsamples": samples, "filesize": samples * STRIDE, "sha256": digest}
        shardlist.append(entry)
    digests = {"samples.npy": _write_rows(folder, count), "keys.txt": _write_keys(folder, count)}
    document = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "schema": SCHEMA,
        "plan": "",
        "seed": 0,
        "shardlist": shardlist,
        "classes": ["images"],
        "counts": {"seen": count, "kept": count},
        "rejects": {},
        "sha256": digests,
    }
    storage.write_json(folder / "index.json", document | {"own": storage.digest(document)})


def _blocks(count: int) -> Iterator[np.ndarray]:
    """The numbers of the samples, a million at a time."""
    for first in range(0, count, 10**6):
        yield np.arange(first, min(first + 10**6, count))


def _write_rows(folder: Path, count: int) -> str:
    """``samples.npy``, and its digest: every sample is a run of zeros."""
    rows = np.lib.format.open_memmap(folder / "samples.npy", "w+", ROW, (count,))
    crc32 = zlib.crc32(bytes(SAMPLE))
    for numbers in _blocks(count):
        block = rows[numbers[0] : numbers[-1] + 1]
        block["offset"] = numbers % SHARD * STRIDE
        block["length"] = SAMPLE
        block["crc32"] = crc32
        block["label"] = 0
        block["orientation"] = 1
    rows.flush()
    return storage.sha256(folder / "samples.npy")


def _write_keys(folder: Path, count: int) -> str:
    """``keys.txt``, and its digest: the numbers of the samples, in digits."""
    powers = 10 ** np.arange(KEY_DIGITS)[::-1]
    with (folder / "keys.txt").open("wb") as file:
        for numbers in _blocks(count):
            text = np.full((len(numbers), KEY_DIGITS + 1), ord("\n"), np.uint8)
            text[:, :-1] = numbers[:, None] // powers % 10 + ord("0")
            file.write(text.tobytes())
    return storage.sha256(folder / "keys.txt")


def time_opening(folder: Path) -> dict[str, float]:
    """Seconds and memory in which a process of its own opens a set and reads a first batch."""
    answer = subprocess.run(
        [sys.executable, "-m", "tests.bench.size", "--open", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


def be_opener(folder: Path) -> dict[str, float]:
    """Open a set, read the samples of a step, and look at what that took."""
    storage.listing(folder)  # what the system knows of the folder, it knows by now
    before = _own_memory()
    began, began_cpu = time.perf_counter(), time.process_time()
    storage.listing(folder)
    listed = time.perf_counter()
    data = shards.open(folder)
    opened, opened_cpu = time.perf_counter(), time.process_time()
    ids = step_ids(
        len(data), batch_size=FIRST_BATCH, step=12345, seed=1, run_length=data.longest_shard
    ).ids
    samples = [data[int(number)] for number in ids]
    read = time.perf_counter()
    assert [sample.key for sample in samples] == [f"{number:0{KEY_DIGITS}}" for number in ids]
    return {
        "listing_s": listed - began,
        "open_s": opened - listed,
        "open_cpu_s": opened_cpu - began_cpu,
        "first_batch_s": read - opened,
        "own_gib": (_own_memory() - before) / 2**20,
        "most_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _own_memory() -> int:
    """KiB that this process shares with nobody and with no file."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0])


@contextmanager
def counted_store() -> Iterator[Counter[str]]:
    """Count what is asked of fsspec's memory filesystem, by the request that S3 would get."""
    from fsspec.implementations.memory import MemoryFileSystem

    requests = {
        "cat_file": "GET",
        "get_file": "GET",
        "pipe_file": "PUT",
        "put_file": "PUT",
        "rm_file": "DELETE",
        "find": "LIST",
    }
    counts = Counter[str]()
    originals = {name: getattr(MemoryFileSystem, name) for name in requests}

    def counting(name: str) -> Callable[..., Any]:
        def count(*arguments: Any, **options: Any) -> Any:
            counts[requests[name]] += 1
            return originals[name](*arguments, **options)

        return count

    for name in requests:
        setattr(MemoryFileSystem, name, counting(name))
    try:
        yield counts
    finally:
        for name, original in originals.items():
            setattr(MemoryFileSystem, name, original)


def count_requests(folder: Path) -> dict[str, dict[str, float]]:
    """Requests of a build into a bucket, of an opening and of an epoch: in all, and of a shard.

    Args:
        folder: an empty one, for images and the cache.
    """
    few, more = (requests_of(folder / str(shard_count), shard_count) for shard_count in (10, 30))
    counts = dict[str, dict[str, float]]()
    for act in few:
        for name in ("LIST", "GET", "PUT", "DELETE"):
            of_shard = (more[act][name] - few[act][name]) / 20
            fixed = few[act][name] - 10 * of_shard
            counts.setdefault(act, {})[name] = fixed
            counts.setdefault(f"{act}_a_shard", {})[name] = of_shard
    return counts


def requests_of(folder: Path, shard_count: int) -> dict[str, Counter[str]]:
    """Requests of a build, an opening and an epoch of a set of four images a shard."""
    images = folder / "images"
    images.mkdir(parents=True)
    for number in range(4 * shard_count):
        Image.new("RGB", (2, 2), (number, 0, 0)).save(images / f"{number}.png")
    url = f"memory://size/{shard_count}"
    with counted_store() as counts:
        shards.build(images, url, shard_size=4)
        of_build = counts.copy()
        counts.clear()
        data = shards.open(url, Cache(folder / "cache"))
        of_opening = counts.copy()
        counts.clear()
        for step in range(shard_count):
            ids = step_ids(len(data), batch_size=4, step=step, seed=0, run_length=4).ids
            for number in ids:
                _ = data[int(number)]
        of_epoch = counts.copy()
    assert len(data.index.shards) == shard_count
    return {"build": of_build, "opening": of_opening, "epoch": of_epoch}


def build_memory(folder: Path, count: int = 20_000) -> dict[str, float]:
    """Bytes a sample that a build has in memory: its plan, and what the index will say."""
    for number in range(count):
        (folder / f"{number:06}.jpg").write_bytes(b"\xff\xd8\xff")
    tracemalloc.start()
    plan = make_plan(folder)
    planned, _ = tracemalloc.get_traced_memory()
    text = json.dumps(
        [[number * 512, 40_000, number + 2**30, 1, 1, f"{number:012}"] for number in range(count)]
    )
    before, _ = tracemalloc.get_traced_memory()
    entries = [Entry(*entry) for entry in json.loads(text)]
    written, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(plan.source.samples) == len(entries) == count
    return {"plan_bytes": planned / count, "entry_bytes": (written - before) / count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10**8)
    parser.add_argument("--folder", type=Path, help="where there is room for the set")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        print(json.dumps(be_opener(options.open)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        parts = [folder / part for part in ("set", "cache", "images")]
        for part in parts:
            part.mkdir()
        write_set(parts[0], options.samples)
        tries = [time_opening(parts[0]) for _ in range(3)]
        figures = {
            "samples": options.samples,
            "shards": -(-options.samples // SHARD),
            "side_files_gb": sum(
                (parts[0] / file).stat().st_size for file in ("samples.npy", "keys.txt")
            )
            / 1e9,
            "opening": min(tries, key=lambda figures: figures["open_s"]),
            "order": [time_order(10 * options.samples // part) for part in (10, 1)],
            "requests": count_requests(parts[1]),
            "build": build_memory(parts[2]),
            "listed": LISTED,
            "features": FEATURES,
        }
    text = json.dumps(figures, indent=1) + "\n"
    print(text)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text)


if __name__ == "__main__":
    main()
