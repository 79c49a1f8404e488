"""Single bits flipped in what CARE has written: ``python -m tests.trust.flips --flips 10000``.

Each flip is made in a file at random, read as a user would read it, and taken back. It is
*detected* where reading refuses, passes the item over or does it again; *harmless* where all that
is read is equal to what was written, such as in the padding of a tar; else it is *undetected*.
"""

import argparse
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
import numpy as np
import torch
from PIL import Image
from torch import nn
import shards
from care.evaluate import features
from care.train import checkpoint
from flows import records
from shards import storage
from shards.errors import Failure

OUTCOMES = ("detected", "harmless", "undetected")


class Target(NamedTuple):
    """Files of one kind, and how a reader takes them.

    Attributes:
        files: whose bits are flipped.
        read: what is read of them, None where they are passed over; may raise a ``Failure``.
    """

    files: list[Path]
    read: Callable[[], Any]


def targets(folder: Path) -> dict[str, Target]:
    """What is written below a folder, by kind."""
    return {**_of_a_set(folder / "set"), **_of_a_run(folder), **_of_a_stage(folder / "out")}


def campaign(flips: int, seed: int, folder: Path) -> dict[str, Any]:
    """Flip bits, the same number of each kind, and count what became of them.

    Args:
        flips: how many in all.
        seed: of the choice of files and bits.
        folder: an empty one.
    """
    generator = random.Random(seed)
    kinds = targets(folder)
    counts = {kind: Counter[str]() for kind in kinds}
    written = {kind: target.read() for kind, target in kinds.items()}
    for number in range(flips):
        kind = [*kinds][number % len(kinds)]
        file = generator.choice(kinds[kind].files)
        bit = generator.randrange(8 * file.stat().st_size)
        outcome = _outcome(kinds[kind], written[kind], file, bit)
        counts[kind][outcome] += 1
        if outcome == "undetected":
            print(f"undetected: bit {bit} of {file.relative_to(folder)}")
    rows = {kind: {name: counts[kind][name] for name in OUTCOMES} for kind in kinds}
    return {"command": _command(flips, seed), "flips": flips, "seed": seed, "kinds": rows}


def _command(flips: int, seed: int) -> str:
    return f"python -m tests.trust.flips --flips {flips} --seed {seed}"


def _outcome(target: Target, written: Any, file: Path, bit: int) -> str:
    """What becomes of one bit flipped."""
    with _flipped(file, bit):
        try:
            value = target.read()
        except Failure:
            return "detected"
    if value is None:
        return "detected"
    return "harmless" if value == written else "undetected"


@contextmanager
def _flipped(file: Path, bit: int) -> Iterator[None]:
    """A file with one bit changed, and afterwards as it was."""
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << (bit % 8)
    file.write_bytes(damaged)
    try:
        yield
    finally:
        file.write_bytes(whole)


def _of_a_set(folder: Path) -> dict[str, Target]:
    """A set of noise: its tars as training and as an audit read them, and its index."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    samples = ((str(n), Image.fromarray(image), n % 3) for n, image in enumerate(pixels))
    shards.build(samples, folder, shard_size=6, workers=1)

    def read_samples() -> list[Any]:
        data = shards.open(folder)
        content = [data.digest, data.classes, data.index.rejects]
        return [*content, *(data[number] for number in range(len(data)))]

    def audit() -> str | None:
        return None if shards.verify(folder) else "whole"

    tars = sorted(folder.glob("*.tar"))
    index = [folder / name for name in ("index.json", "samples.npy", "keys.txt")]
    return {
        "tars, read by training": Target(tars, read_samples),
        "tars, audited": Target(tars, audit),
        "index": Target(index, read_samples),
    }


def _of_a_run(folder: Path) -> dict[str, Target]:
    """A checkpoint and the features of a cache."""
    torch.manual_seed(0)
    net = nn.Linear(8, 8)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    manifest = {"step": 2, "settings": {"lr": 0.1, "size": 16}, "scaler": {}}
    checkpoint.save(folder / "run", checkpoint.snapshot(net, optimizer), manifest)

    def read_checkpoint() -> list[Any] | None:
        newest = checkpoint.latest(folder / "run")
        if newest is None:
            return None
        known = {name: newest.manifest.get(name) for name in (*manifest, "schema", "files")}
        tensors = {
            name: tensor.tolist()
            for part in ("model", "optimizer")
            for name, tensor in newest.tensors(part).items()
        }
        return [newest.step, known, tensors]

    x = torch.randn(6, 16)
    cache = folder / "features"
    storage.write_bytes(cache / "0.safetensors", features._packed(x))

    def read_features() -> list[Any] | None:
        kept = features._cached(str(cache), [0])
        return kept[0].tolist() if kept else None

    return {
        "checkpoints": Target(
            sorted((folder / "run" / "checkpoints").rglob("*.*")), read_checkpoint
        ),
        "features": Target([cache / "0.safetensors"], read_features),
    }


def _of_a_stage(out: Path) -> dict[str, Target]:
    """The record of a finished stage of the pipeline, with one output."""
    stage = records.key_stage(str(out), "knn", "judge", {"verb": "knn", "size": 16})
    output = Path(stage.url, "results.json")
    storage.write_json(output, {"top1": 71.25})
    file = {"size": output.stat().st_size, "sha256": storage.sha256(output)}
    result = {"rows": [{"top1": 71.25}], "text": "done", "outputs": {"results.json": file}}
    record = {"key": stage.key, "result": result, "inputs": {"verb": "knn", "size": 16}}
    storage.write_json(f"{stage.url}.json", records.sealed(record))

    def read_result() -> Any:
        return records.finished_result(stage)

    return {"records": Target([Path(f"{stage.url}.json"), output], read_result)}


def main() -> None:
    """Run the campaign and keep its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--flips", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None, help="where the figures are kept")
    options = parser.parse_args()
    if options.flips < 1:
        parser.error(f"wanted at least one flip, got {options.flips}")
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as folder:
        figures = campaign(options.flips, options.seed, Path(folder))
    print(json.dumps(figures, indent=1))
    if options.json is not None:
        storage.write_json(options.json, figures)
    if any(row["undetected"] for row in figures["kinds"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
