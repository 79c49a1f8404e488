"""A set as a ``webdataset`` pipeline, for training loops that are written for one."""

from typing import Any
from shards.reader import ShardSet


def stream(data: ShardSet) -> Any:
    """The samples of a set from front to back, in webdataset's order.

    The shards are divided among nodes and loader workers; those of an object store come through the
    cache. Append shuffling, decoding and batching with ``.append(webdataset.…)``. Only
    ``care.train.batches`` can be resumed exactly.

    Args:
        data: the set.

    Returns:
        A ``webdataset.DataPipeline`` of dictionaries of bytes: ``__key__``, ``jpg`` (or another
        suffix), and ``cls`` where there are labels.
    """
    import webdataset  # it imports torch, which this package does without

    shards = {shard.url: shard for shard in data.index.shards}

    def open_tar(source: dict[str, Any]) -> dict[str, Any]:
        return {**source, "stream": data.open_shard(shards[source["url"]])}

    return webdataset.DataPipeline(
        webdataset.SimpleShardList([*shards]),
        webdataset.split_by_node,
        webdataset.split_by_worker,
        webdataset.map(open_tar),
        webdataset.tariterators.tar_file_expander,
        webdataset.tariterators.group_by_keys,
    )
