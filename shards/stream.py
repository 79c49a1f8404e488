"""A shard set read from front to back, through webdataset."""

from typing import Any
from shards.reader import ShardSet


def stream(data: ShardSet) -> Any:
    """A ``webdataset.DataPipeline`` of dicts of bytes, ``__key__``, ``jpg`` (or another suffix), ``cls``; its order is webdataset's."""
    import webdataset  # it imports torch, which this package does without

    shards, tars = {shard.url: shard for shard in data.index.shards}, webdataset.tariterators
    opened = webdataset.map(lambda source: {**source, "stream": data.opened(shards[source["url"]])})
    stages = (
        webdataset.split_by_node,
        webdataset.split_by_worker,
        opened,
        tars.tar_file_expander,
        tars.group_by_keys,
    )
    return webdataset.DataPipeline(webdataset.SimpleShardList([*shards]), *stages)
