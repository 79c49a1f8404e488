"""Bytes on disk or in a bucket: images built into WebDataset tars with an index, and read back by number, in any order, checked.

What belongs here is what training must be able to trust: durable writing, the index, the build, the reader, the order of
samples, the audit, and the one image decoder. numpy and Pillow only; torch is for ``care``.
"""

from shards.build import build
from shards.errors import ShardError
from shards.images import Reject, decode
from shards.index import Index, verify
from shards.order import step_ids
from shards.reader import Cache, Sample, ShardSet, open, stream

__all__ = ["Cache", "Index", "Reject", "Sample", "ShardError", "ShardSet", "build", "decode", "open", "step_ids", "stream", "verify"]
