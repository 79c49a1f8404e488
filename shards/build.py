"""From images to a shard set: a plan, one pure function per shard, an index; resumable, every input kept or rejected by name."""

import hashlib
import io
import json
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated
import numpy as np
from shards import index, locks, storage
from shards.bounds import Fraction, NonNegativeInt, PositiveInt, Range
from shards.cores import available_cores
from shards.errors import ShardError
from shards.images import Validation
from shards.plan import OUR_FILES, RECORD, Plan, make_plan, missing
from shards.progress import progress
from shards.rejects import Reject
from shards.write import write_shard


def build(
    src: str | Path,
    dest: str | Path,
    *,
    workers: PositiveInt | None = None,
    shard_size: PositiveInt = 1000,
    seed: NonNegativeInt = 0,
    share: tuple[float, float] = (0, 1),
    max_rejects: Fraction = 0.01,
    validate: Validation = "decode",
    max_side: PositiveInt | None = None,
    quality: Annotated[int, Range(1, 100)] = 90,
) -> index.Index:
    """Build the images of ``src`` into the shard set ``dest``, in an order drawn from ``seed``.

    An interrupted build goes on where it stopped, a finished one returns at once. The bytes do not depend on ``workers``.
    Bad arguments or input, another set in ``dest``, too many rejects, or a disk that refuses, are a ``ShardError``.

    Args:
        src: a folder, CSV, COCO JSON, VOC list or WebDataset; a path or a URL, see ``shards.sources.find``.
        dest: a new or empty folder, or what an earlier run with the same arguments left; a path or a URL.
        workers: threads; by default one a core that it may use (reading, decoding and checksums release the GIL).
        shard_size: images a shard, before rejects.
        seed: of the order.
        share: see ``shards.sources.find``.
        max_rejects: share of the images that may be rejected; files of other kinds do not count.
        validate: what every image has to pass, see ``shards.images.check``.
        max_side: px; images with a longer side are made smaller and JPEG, all others keep their bytes.
        quality: of those JPEGs, 1…100.
    """
    if not 0 <= max_rejects <= 1 or (workers is not None and workers < 1):
        raise ShardError(
            f"wanted max_rejects from 0 to 1 and at least one worker, got {max_rejects} and {workers}"
        )
    root = storage.locate(dest)
    inside, outside = (
        str(path).rstrip("/") if storage.is_remote(path) else str(Path(path).resolve())
        for path in (dest, src)
    )
    if f"{inside}/".startswith(f"{outside}/"):
        raise ShardError(f"{dest} lies in the source {src}; choose a DEST outside of it")
    plan = make_plan(
        src,
        shard_size=shard_size,
        seed=seed,
        share=share,
        validate=validate,
        max_side=max_side,
        quality=quality,
    )
    with locks.exclusive(root, "building"):
        names = (
            [*storage.listing(root, deep=True)]
            if storage.is_remote(root)
            else sorted(path.name for path in root.iterdir())
        )
        if foreign := [name for name in names if not OUR_FILES.fullmatch(name)]:
            raise ShardError(
                f"{root} holds other things ({', '.join(foreign[:3])}); choose a new or empty folder as DEST"
            )
        records = [root / name for name in names if name.startswith(".shard-")]
        found = index.load(root) if "index.json" in names else None
        if (
            {found.plan} if found else {storage.read_json(record)["plan"] for record in records}
        ) - {plan.digest}:
            raise ShardError(
                f"{root} holds a set built from other input or options; remove it or choose another DEST"
            )
        if found:
            for record in records:  # left by a kill after the index was committed
                storage.remove(record)
            return found
        left = missing(plan, names)
        count, todo = len(plan.source.samples), sum(len(plan.shards[n]) for n in left)
        stop, lock = threading.Event(), threading.Lock()
        with (
            progress("building", count, start=count - todo) as advance,
            ThreadPoolExecutor(workers or available_cores()) as pool,
        ):

            def tick() -> None:
                if stop.is_set():
                    raise CancelledError
                with lock:
                    advance(1, "")

            try:
                list(
                    pool.map(lambda n: write_shard(plan, root, n, tick), left)
                )  # which cancels those after one that fails
            finally:
                stop.set()
        return commit(plan, root, max_rejects=max_rejects)


def commit(plan: Plan, dest: Path, *, max_rejects: float) -> index.Index:
    """Make the written shards of ``dest`` a set, or refuse because too many images were rejected."""
    records = [
        storage.read_json(dest / RECORD.format(number)) for number in range(len(plan.shards))
    ]
    entries = [entry for record in records for entry in record["entries"]]
    pairs = sorted(
        [*plan.source.rejects, *((r, n) for record in records for r, n in record["rejects"])]
    )
    rejects = {
        str(reason): [name for other, name in pairs if other == reason]
        for reason in dict.fromkeys(r for r, _ in pairs)
    }
    lost = {reason: names for reason, names in rejects.items() if reason != Reject.OTHER_FILE}
    count = sum(map(len, lost.values()))
    if not entries or count > max_rejects * (count + len(entries)):
        listed = "; ".join(
            f"{len(names)} {reason} ({', '.join(names[:3])}{', …' * (len(names) > 3)})"
            for reason, names in lost.items()
        )
        got = f"{count} of {count + len(entries)} images were rejected, {max_rejects:.2%} may be: {listed}"
        raise ShardError(
            f"{got}. Repair or remove them, or raise --max-rejects; {dest} is not a set yet, and a next run reuses its shards"
        )
    np.save(rows := io.BytesIO(), np.array([tuple(entry[:-1]) for entry in entries], index.ROW))
    sides = {
        "samples.npy": rows.getvalue(),
        "keys.txt": "".join(f"{entry[-1]}\n" for entry in entries).encode(),
    }
    if known := plan.annotations:
        kept, by_path = (
            {entry[-1] for entry in entries},
            {image.path: image for image in plan.source.samples},
        )
        there = [
            (by_path[str(path)], entry) for path, *_, entry in known.images if str(path) in by_path
        ]
        images = {
            entry["id"]: entry | {"key": image.key, "file_name": image.name}
            for image, entry in there
            if image.key in kept
        }
        objects = [one for one in known.content["annotations"] if one["image_id"] in images]
        broken = [(Reject.NO_IMAGE, image.name) for image, _ in there if image.key not in kept]
        content = known.content | {
            "images": [*images.values()],
            "annotations": objects,
            "rejects": [*known.rejects, *broken],
        }
        sides["annotations.json"] = json.dumps(content, sort_keys=True).encode()
    for name, data in sides.items():
        storage.write_bytes(dest / name, data)
    shardlist = [index.Shard(*record["shard"])._asdict() for record in records]
    rejected = {reason: len(names) for reason, names in rejects.items()}
    document = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "schema": index.SCHEMA,
        "plan": plan.digest,
        "seed": plan.seed,
        "name": storage.digest(shardlist)[
            :16
        ],  # wids caches by name: other content needs another one
        "shardlist": shardlist,
        "classes": plan.source.classes,
        "rejects": rejects,
        "counts": {
            "seen": len(entries) + sum(rejected.values()),
            "kept": len(entries),
            "rejected": rejected,
        },
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in sides.items()},
    }
    storage.write_json(dest / "index.json", document | {"own": storage.digest(document)})
    for number in range(len(plan.shards)):
        storage.remove(dest / RECORD.format(number))
    return index.load(dest)
