"""A set as a ``webdataset`` pipeline, for training loops that are written for one."""

import os
from collections.abc import Iterator
from typing import Any

from shards.reader import ShardSet


def stream(data: ShardSet) -> Any:
    """A ``webdataset.DataPipeline`` of dicts ``__key__``, ``jpg`` (or another suffix) and ``cls`` where there are labels, all bytes.

    The shards are divided among nodes and loader workers; those of an object store come through the cache. Append shuffling, decoding
    and batching with ``.append(webdataset.…)``. This order is webdataset's; exact resumption needs ``care.train.batches``.
    """
    import webdataset  # it imports torch, which this package does without

    def opened(urls: Any) -> Iterator[dict[str, Any]]:
        shards = {shard.url: shard for shard in data.index.shards}
        for source in urls:
            yield {**source, "stream": os.fdopen(data.descriptor(shards[source["url"]]), "rb")}

    return webdataset.DataPipeline(
        webdataset.SimpleShardList([shard.url for shard in data.index.shards]),
        webdataset.split_by_node,
        webdataset.split_by_worker,
        opened,
        webdataset.tariterators.tar_file_expander,
        webdataset.tariterators.group_by_keys,
    )
