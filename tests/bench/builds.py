"""Builds of small and of common images beside ShardWriter (python -m tests.bench.builds).

Each peer is a process that builds when it is asked to, so that builds of one package can be
interleaved: with --before, another checkout of this project. webdataset's ShardWriter writes the
same members without index, digests or checks; a plain byte copy is the least that anybody can do.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from tests.bench.timing import show

ROOT = Path(__file__).parents[2]
ROUNDS = 3
REFERENCE = "webdataset.ShardWriter"


class Kind(NamedTuple):
    """Images of one size.

    Attributes:
        name: what they are called in the tables.
        size: width and height in pixels.
        quality: of the JPEGs.
        share: of the files that are asked for.
    """

    name: str
    size: tuple[int, int]
    quality: int
    share: float


FILES = 9_000
SMALL = Kind("small", (160, 120), 85, 1.0)
COMMON = Kind("common", (500, 375), 90, 0.25)


class Cost(NamedTuple):
    """What a build takes.

    Attributes:
        seconds: on the clock.
        cpu_seconds: of all cores together, which a busy neighbour hardly changes.
    """

    seconds: float
    cpu_seconds: float


class Builder:
    """A process that builds the same images again and again.

    Args:
        root: checkout whose packages it imports.
        peer: what builds: a row of ``BUILDS``.
        images: folder of the images.
    """

    def __init__(self, root: Path, peer: str, images: Path) -> None:
        command = [sys.executable, "-P", str(Path(__file__)), "--serve", peer, str(images)]
        environment = os.environ | {"PYTHONPATH": f"{root}:{ROOT}"}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            cwd=root,
        )

    def __call__(self) -> Cost:
        """Build once."""
        requests, answers = self._process.stdin, self._process.stdout
        assert requests and answers  # noqa: PT018 (they are pipes)
        requests.write("\n")
        requests.flush()
        seconds, cpu_seconds = answers.readline().split()
        return Cost(float(seconds), float(cpu_seconds))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def compare(before: Path | None = None, rounds: int = ROUNDS, files: int = FILES) -> None:
    """Show how long each peer takes, beside ShardWriter.

    Args:
        before: another checkout of this project.
        rounds: how often each builds.
        files: how many small images there are.
    """
    with tempfile.TemporaryDirectory() as name:
        for kind in (SMALL, COMMON):
            images = Path(name) / kind.name
            count = round(files * kind.share)
            size = lay_out(kind, images, count)
            costs = measured(peers(before), images, rounds)
            files_of_size = f"{count:,} files of {size / 1000:.0f} KB with labels"
            titles = (f"building {files_of_size}, {os.cpu_count()} cores", "its CPU time")
            for title, field in zip(titles, Cost._fields, strict=True):
                times = {name: getattr(cost, field) for name, cost in costs.items()}
                show(title, times, count=count, unit="file", reference=REFERENCE)


def peers(before: Path | None) -> dict[str, tuple[Path, str]]:
    """Checkout and kind of build of each row of the tables."""
    rows = {name: (ROOT, name) for name in BUILDS}
    if before is not None:
        rows |= {f"{name}, before": (before, name) for name in BUILDS if name.startswith("care")}
    return rows


def lay_out(kind: Kind, folder: Path, count: int) -> int:
    """Write the images of a kind into ten classes.

    Returns:
        The mean number of bytes of a file.
    """
    import io
    from PIL import Image
    from tests.bench.views import photograph

    files = list[bytes]()
    for seed in range(50):
        with Image.open(io.BytesIO(photograph(seed))) as image:
            file = io.BytesIO()
            image.resize(kind.size).save(file, "JPEG", quality=kind.quality)
        files.append(file.getvalue())
    for number in range(count):
        path = folder / f"class{number % 10}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[number % len(files)])
    return sum(map(len, files)) // len(files)


def measured(rows: dict[str, tuple[Path, str]], images: Path, rounds: int) -> dict[str, Cost]:
    """Median costs of each peer, all in turn; a first round warms up."""
    builders = {name: Builder(root, peer, images) for name, (root, peer) in rows.items()}
    costs: dict[str, list[Cost]] = {name: [] for name in builders}
    try:
        for round_number in range(rounds + 1):
            for name, builder in builders.items():
                os.sync()  # what one peer left to be written does not slow the next one
                cost = builder()
                if round_number:
                    costs[name].append(cost)
    finally:
        for builder in builders.values():
            builder.close()
    return {
        name: Cost(*map(statistics.median, zip(*values, strict=True)))
        for name, values in costs.items()
    }


def serve(peer: str, images: Path) -> None:
    """Answer each line by the seconds of a build, on the clock and of the cores."""
    build = BUILDS[peer](images)
    with tempfile.TemporaryDirectory(dir=images.parent) as name:
        for _ in sys.stdin:
            folder = Path(name) / "set"
            folder.mkdir()
            began, cpu_began = time.perf_counter(), cpu_seconds()
            build(folder)
            print(time.perf_counter() - began, cpu_seconds() - cpu_began, flush=True)
            shutil.rmtree(folder)


def cpu_seconds() -> float:
    """What this process and those that it waited for have used."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def care_build(validate: str, workers: int | None) -> Callable[[Path], Callable[[Path], object]]:
    """Our build with some options."""

    def of(images: Path) -> Callable[[Path], object]:
        import shards

        options = {"validate": validate, "workers": workers}
        return lambda folder: shards.build(images, folder, **options)  # type: ignore[arg-type]

    return of


def shard_writer(images: Path) -> Callable[[Path], object]:
    """webdataset's writer in its recipe's loop."""
    import webdataset

    files = sorted(images.rglob("*.jpg"))
    names = sorted(path.name for path in images.iterdir())
    labels = {name: number for number, name in enumerate(names)}

    def build(folder: Path) -> None:
        with webdataset.ShardWriter(f"{folder}/%06d.tar", maxcount=1000, verbose=0) as sink:
            for file in files:
                label = labels[file.parent.name]
                sink.write({"__key__": file.stem, "jpg": file.read_bytes(), "cls": label})

    return build


def byte_copy(images: Path) -> Callable[[Path], object]:
    """All bytes into one file."""
    files = sorted(images.rglob("*.jpg"))

    def build(folder: Path) -> None:
        with (folder / "all").open("wb") as sink:
            for file in files:
                sink.write(file.read_bytes())

    return build


BUILDS: dict[str, Callable[[Path], Callable[[Path], object]]] = {
    REFERENCE: shard_writer,
    "plain byte copy into one file": byte_copy,
    "care --validate none, one worker": care_build("none", 1),
    "care --validate none": care_build("none", None),
    "care --validate header": care_build("header", None),
    "care --validate decode, one worker": care_build("decode", 1),
    "care --validate decode": care_build("decode", None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--files", type=int, default=FILES, help="of the smaller kind")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], Path(options.serve[1]))
    else:
        compare(options.before, options.rounds, options.files)


if __name__ == "__main__":
    sys.exit(main())
