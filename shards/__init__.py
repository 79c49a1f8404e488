"""Bytes that training can trust, on disk or in a bucket: durable writing, build, index, reader, order, audit, one decoder; no torch."""

from shards.build import build
from shards.errors import ShardError
from shards.images import Reject, decode
from shards.index import Index, verify
from shards.reader import Cache, Sample, ShardSet, open, step_ids, stream

__all__ = [
    "Cache",
    "Index",
    "Reject",
    "Sample",
    "ShardError",
    "ShardSet",
    "build",
    "decode",
    "open",
    "step_ids",
    "stream",
    "verify",
]
