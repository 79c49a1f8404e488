"""Bytes that training can trust, on a disk or in a bucket.

Here live the images and their boxes: what there is to build from (``sources``), how a set is built,
what it is (``index``), how it is read (``reader``), in which order (``order``), how it is audited
(``verify``); beside them procedural scenes, and what all packages share: durable files
(``storage``), locks, errors, bounds of numbers, progress. No model, no torch, no command line.

Invariants: a file that has its final name is whole; every input file is a sample or a reject with a
reason; equal input and options give equal bytes. ``tests/shards/test_build.py`` and
``tests/shards/test_storage.py`` hold them.
"""

from shards.build import build
from shards.build_sets import build_sets
from shards.cache import Cache
from shards.errors import ShardError
from shards.hold_out import HoldOut
from shards.images import decode
from shards.index import Index
from shards.order import step_ids
from shards.reader import Sample, ShardSet, open
from shards.rejects import Reject
from shards.stream import stream
from shards.verify import verify

__all__ = [
    "Cache",
    "HoldOut",
    "Index",
    "Reject",
    "Sample",
    "ShardError",
    "ShardSet",
    "build",
    "build_sets",
    "decode",
    "open",
    "step_ids",
    "stream",
    "verify",
]
