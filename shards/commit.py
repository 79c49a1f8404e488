"""The written shards of a folder become a set, or are refused because too much is left out."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
import numpy as np
from shards import storage
from shards.contents import UNKNOWN, is_comparable, remember
from shards.counted import images_that
from shards.errors import ShardError
from shards.index import ROW, SCHEMA, SCHEMA_OF_FOUR_BANDS, Index, read_index
from shards.pixel_report import PixelReport, refuse_faded, total
from shards.plan import Plan
from shards.records import Entry, Records, ShardRecord
from shards.refused import LIST, remove_list, write_list
from shards.rejects import NO_IMAGES, Reject, Rejection, describe, group_by_reason
from shards.seals import sealed
from shards.sources.annotations import Annotations
from shards.sources.candidates import Candidate, is_elsewhere

_TRIED_AGAIN = frozenset(
    (
        Reject.NOT_FETCHED,
        Reject.ODD_TIFF,
        Reject.DEEP_JPEG2000,
        Reject.HEIF,
        Reject.JPEG_XL,
    )
)


def commit(plan: Plan, dest: Path, written: Records, *, max_rejects: float, began: float) -> Index:
    """Write the index of a set whose shards are all there, and remove their records.

    Args:
        plan: what the shards were written from.
        dest: the set's folder.
        written: the records in it.
        max_rejects: share of the images that may be rejected; files that never were images do not
            count.
        began: when the first image was read or compared, in seconds since the epoch.

    Returns:
        The index.

    Raises:
        ShardError: Too many images were rejected, or none is left.
    """
    records = [written[number] for number in range(len(plan.shards))]
    entries = list[Entry]()
    rejections = [*plan.source.rejects]
    for record in records:
        entries += record.entries
        rejections += record.rejects
    rejects = group_by_reason(sorted(rejections))
    try:
        _refuse_too_many(rejects, len(entries), max_rejects, dest)
        _refuse_lost_classes(plan, entries, rejections, max_rejects)
    except ShardError:
        write_list(dest, rejects)
        _forget_unfetched(written, len(records))
        raise
    if not plan.rule.is_chosen:
        refuse_faded(total(record.pixels for record in records), dest)
    side_files = {"samples.npy": _samples(entries), "keys.txt": _keys(entries)}
    if plan.annotations is not None:
        side_files["annotations.json"] = _annotations(plan, plan.annotations, entries)
    for name, data in side_files.items():
        storage.write_bytes(dest / name, data)
    images = [image for shard in plan.shards for image in shard]
    contents = [content for record in records for content in record.contents]
    document = _document(plan, records, rejects, side_files)
    if contents != _stored_contents(images, entries):
        document["contents"] = storage.digest(contents)
    storage.write_json(dest / "index.json", sealed(document))
    for number in range(len(records)):
        written.remove(number)
    remove_list(dest)
    if any(is_elsewhere(image.path) for image in images):  # by one listing of their folders
        remember(images, contents, began)
    return read_index(dest)


def _refuse_too_many(
    rejects: Mapping[str, Sequence[str]], kept: int, max_rejects: float, dest: Path
) -> None:
    """A ``ShardError`` if more than a share of the images was rejected, or no image is left."""
    images = {reason: names for reason, names in rejects.items() if reason not in NO_IMAGES}
    count = sum(map(len, images.values()))
    if kept and count <= max_rejects * (count + kept):
        return
    rejected = images_that(count, "was", "were", total=count + kept)
    raise ShardError(
        f"{rejected} rejected, {max_rejects:.2%} may be: {describe(images)}. All of them are in "
        f"{dest / LIST}. Repair or remove them, or raise --max-rejects, and give the same command "
        f"again; {dest} is not a set yet"
    )


def _refuse_lost_classes(
    plan: Plan, entries: Sequence[Entry], rejections: Sequence[Rejection], max_rejects: float
) -> None:
    """A ``ShardError`` if all images of a class were rejected, unless all may be."""
    numbers = {image.label for image in plan.source.samples} - {entry.label for entry in entries}
    lost = sorted(number for number in numbers if number >= 0)
    if not lost or max_rejects >= 1:
        return
    names = {image.name for image in plan.source.samples if image.label in lost}
    why = group_by_reason(rejection for rejection in rejections if rejection.name in names)
    classes = ", ".join(plan.source.classes[number] for number in lost[:3])
    more = ", …" if len(lost) > 3 else ""
    raise ShardError(
        f"no image is left of {len(lost)} of {len(plan.source.classes)} classes ({classes}{more}): "
        f"{describe(why)}. Repair them, or remove their folders; --max-rejects 1 builds the set "
        "without them"
    )


def _forget_unfetched(records: Records, count: int) -> None:
    """Remove the records of shards that lack what a next run may have: links, and plugins."""
    for number in range(count):
        if any(reason in _TRIED_AGAIN for reason, _ in records[number].rejects):
            records.remove(number)


def _stored_contents(images: Sequence[Candidate], entries: Sequence[Entry]) -> list[int | None]:
    """The contents of images that the set has as their files were; None of what it has not."""
    checksums = {entry.key: entry.crc32 for entry in entries}
    return [checksums.get(image.key) if is_comparable(image) else UNKNOWN for image in images]


def _samples(entries: Sequence[Entry]) -> bytes:
    """The bytes of ``samples.npy``."""
    file = io.BytesIO()
    rows = [entry[:-1] for entry in entries]  # without the key
    np.save(file, np.array(rows, ROW))
    return file.getvalue()


def _keys(entries: Sequence[Entry]) -> bytes:
    """The bytes of ``keys.txt``."""
    return "".join(f"{entry.key}\n" for entry in entries).encode()


def _annotations(plan: Plan, annotations: Annotations, entries: Sequence[Entry]) -> bytes:
    """The bytes of ``annotations.json``: the document of the source, of the samples alone.

    Its images have the ``key`` of their sample, and their names in the source. Images that became
    no sample join its rejects.
    """
    kept_keys = {entry.key for entry in entries}
    candidates = {image.path: image for image in plan.source.samples}
    images = dict[Any, dict[str, Any]]()
    rejects = [*annotations.rejects]
    for image in annotations.images:
        candidate = candidates.get(str(image.path))
        if candidate is None:  # in another share of the source
            continue
        if candidate.key in kept_keys:
            names = {"key": candidate.key, "file_name": candidate.name}
            images[image.entry["id"]] = image.entry | names
        else:
            rejects.append(Rejection(Reject.NO_IMAGE, candidate.name))
    objects = [
        annotation
        for annotation in annotations.document["annotations"]
        if annotation["image_id"] in images
    ]
    document = annotations.document | {
        "images": list(images.values()),
        "annotations": objects,
        "rejects": rejects,
    }
    return json.dumps(document, sort_keys=True).encode()


def _document(
    plan: Plan,
    records: Sequence[ShardRecord],
    rejects: Mapping[str, Sequence[str]],
    side_files: Mapping[str, bytes],
) -> dict[str, Any]:
    """The content of ``index.json`` but for its own digest."""
    shardlist = [record.shard._asdict() for record in records]
    kept = sum(record.shard.nsamples for record in records)
    rejected = {reason: len(names) for reason, names in rejects.items()}
    hold_out = plan.source.hold_out
    part = {} if hold_out is None else {"hold_out": hold_out._asdict()}
    # an index of ordinary images has no such part
    pixels = PixelReport(plan.rule.document(), total(record.pixels for record in records))
    if pixels.document():
        part["pixels"] = pixels.document()
    return {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "schema": SCHEMA if plan.rule.channels == 3 else SCHEMA_OF_FOUR_BANDS,
        "plan": plan.digest,
        "seed": plan.seed,
        # wids caches by name: other content needs another one
        "name": storage.digest(shardlist)[:16],
        "shardlist": shardlist,
        "classes": plan.source.classes,
        "rejects": rejects,
        "counts": {
            "seen": kept + sum(rejected.values()),
            "kept": kept,
            "rejected": rejected,
        },
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in side_files.items()},
        **part,
    }
