"""What a build does, decided before it starts: which image goes into which shard, in which order."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple, get_args
from shards import index, sources, storage
from shards.errors import ShardError
from shards.images import Validation
from shards.order import permutation
from shards.sources.annotations import Annotations
from shards.sources.candidates import Candidate

TAR, RECORD = "shard-{:06}.tar", ".shard-{:06}.json"
OUR_FILES = re.compile(
    r"(\.part-)?(\.?shard-\d{6,}\.(tar|json)|samples\.npy|keys\.txt|(annotations|index)\.json)|\.lease"
)


class Plan(NamedTuple):
    """Everything that decides the bytes of a set."""

    source: sources.Source
    annotations: Annotations | None
    shards: list[list[Candidate]]  # of each, in order
    validate: Validation
    seed: int
    max_side: int | None
    quality: int
    digest: str


def make_plan(
    src: str | Path,
    *,
    shard_size: int = 1000,
    seed: int = 0,
    share: tuple[float, float] = (0, 1),
    validate: Validation = "decode",
    max_side: int | None = None,
    quality: int = 90,
) -> Plan:
    """List ``src`` and cut it into shards."""
    if (
        min(shard_size, quality, 1 if max_side is None else max_side) < 1
        or quality > 100
        or validate not in get_args(Validation)
    ):
        got = f"{shard_size}, {max_side}, {quality} and {validate!r}"
        raise ShardError(
            f"wanted shard_size and max_side from 1, quality from 1 to 100, validate of {get_args(Validation)}, got {got}"
        )
    if (known := sources.read_annotations(src)) and max_side:
        raise ShardError(
            f"the boxes of {src} are in pixels of its images, which max_side would make smaller; leave it out"
        )
    source = sources.find(src, share=share, known=known)
    shuffled = [source.samples[i] for i in permutation(len(source.samples), seed=seed, stream=0)]
    shards = [shuffled[at : at + shard_size] for at in range(0, len(shuffled), shard_size)]
    files = [[image.name, image.size, image.label] for image in source.samples]
    options = [
        seed,
        shard_size,
        validate,
        max_side,
        quality,
        index.SCHEMA,
        *([known.content] if known else []),
    ]
    return Plan(
        source,
        known,
        shards,
        validate,
        seed,
        max_side,
        quality,
        storage.digest([files, source.classes, source.rejects, *options]),
    )


def missing(plan: Plan, names: Collection[str]) -> list[int]:
    """The shards that are not among the files in a set's folder."""
    return [
        n for n in range(len(plan.shards)) if not {TAR.format(n), RECORD.format(n)}.issubset(names)
    ]
