"""Shard sets out of images or procedural scenes."""

import inspect
from typing import Any
import shards
from flows.result import Result
from flows.works.outputs import outputs
from shards.plan import Plan, make_plan
from shards.scenes_cache import images_of


def build(
    out: str, *, source: str, annotated: bool = False, seed: int = 0, **settings: Any
) -> Result:
    """The shard set ``out`` of some images.

    Args:
        out: folder of the set, path or URL.
        source: the images; ``scenes:START+COUNT`` are procedural scenes.
        annotated: whether boxes and masks are wanted; else classes, of scenes and of folders.
        seed: of the order of the images, and of the scenes.
        **settings: those of ``shards.build``.

    Returns:
        The digest of its index, its files and counts of what was kept and rejected.

    Raises:
        ShardError: ``annotated`` images have no annotations.
    """
    index = shards.build(images_of(source, annotated, seed), out, seed=seed, **settings)
    if annotated and "annotations.json" not in index.sha256:
        wanted = "wanted a COCO JSON, a folder with an annotations.json, or a VOC list"
        raise shards.ShardError(f"{wanted}, got {source} without boxes")
    rejected = {reason: len(names) for reason, names in index.rejects.items()}
    tars = {shard.url: {"size": shard.filesize, "sha256": shard.sha256} for shard in index.shards}
    kept = len(index.samples)
    reasons = "".join(f", {count:,} {reason}" for reason, count in rejected.items())
    return {
        "digest": index.digest,
        "outputs": outputs(out, "index.json") | tars,
        "text": f"{kept:,} of {index.seen:,} files kept{reasons}",
        "counts": {"seen": index.seen, "kept": kept, **rejected},
    }


def build_plan(inputs: Result) -> Plan:
    """What ``build`` would write with some inputs: its digest says what the images are.

    Args:
        inputs: of ``build``; ``nproc`` and what else decides nothing may be among them.
    """
    seed = inputs.get("seed", 0)
    source = images_of(inputs["source"], inputs.get("annotated", False), seed)
    options = inspect.signature(make_plan).parameters.keys() & inputs.keys()
    return make_plan(source, **{option: inputs[option] for option in options})
