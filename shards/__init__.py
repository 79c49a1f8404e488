"""Bytes that training can trust, on disk or in a bucket: durable writing, build, index, reader, order, audit, one decoder; no torch."""

from shards.build import build
from shards.cache import Cache
from shards.errors import ShardError
from shards.images import decode
from shards.index import Index
from shards.order import step_ids
from shards.reader import Sample, ShardSet, open
from shards.rejects import Reject
from shards.stream import stream
from shards.verify import verify

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
