"""From images to a shard set: a plan, the shards that are missing, an index.

A build can be resumed at any moment, and every input is kept or rejected by name.
"""

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any
from shards import locks, storage
from shards.bounds import Fraction, NonNegativeInt, PositiveInt, Range
from shards.changes import forget_changed, refuse_changed
from shards.commit import commit
from shards.cores import available_cores
from shards.errors import ShardError
from shards.hold_out import HoldOut
from shards.images import Validation
from shards.index import Index, read_index
from shards.pixel_report import warnings
from shards.pixel_rules import Choice
from shards.pixels import Alpha
from shards.plan import Plan, is_built_file, make_plan, missing_shards, plan_of
from shards.progress import warn
from shards.records import Records, numbers_of
from shards.refused import LIST, forget_refused
from shards.siblings import sibling_notes
from shards.sources import arrange
from shards.sources.iterables import refuse_other
from shards.spool import collect, remove_spool
from shards.writers import write_shards


def build(  # noqa: PLR0913 (a public verb)
    src: str | Path | Iterable[Any],
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
    classes: bool = True,
    image_root: str | None = None,
    columns: tuple[str, ...] | None = None,
    hold_out: HoldOut | None = None,
    min_side: PositiveInt | None = None,
    value_range: str | None = None,
    bands: tuple[int, ...] | None = None,
    alpha: Alpha = "auto",
) -> Index:
    """Build the images of a source into a shard set, in an order drawn from a seed.

    An interrupted build goes on where it stopped, a finished one returns at once, unless images
    have changed since: files that were touched are read again, and compared. The bytes do not
    depend on ``workers``.

    Args:
        src: a folder, CSV, COCO JSON, VOC list or WebDataset; a path or a URL, see
            ``shards.sources.find``. Or any iterable of (key, image, label): a unique name; a file's
            bytes, a path, a Pillow image or an array of uint8 [height, width, 3]; and the name or
            the number of a class, or None.
        dest: a new or empty folder, or what an earlier run with the same arguments left; a path or
            a URL.
        workers: shards that are written at a time; by default one a core that it may use. On Linux
            each has a process, but for few images, and for those and sets in object stores.
        shard_size: images a shard, before rejects.
        seed: of the order.
        share: see ``shards.sources.find``.
        max_rejects: share of the images that may be rejected; files that never were images do not
            count.
        validate: what every image has to pass: decode reads all of it, header its first bytes, none
            nothing.
        max_side: px; images with a longer side are made smaller and JPEG, all others keep their
            bytes.
        quality: of those JPEGs, 1…100.
        classes: whether images have the classes that the source says; switch it off where folders
            are days, cameras or patients.
        image_root: folder of the images of a COCO JSON or a table, where they are not found around
            it.
        columns: names of a table's columns of the image and of the class, or their numbers from 1.
        hold_out: which part of the source, where some images of each class are held out; see
            ``shards.build_sets``.
        min_side: px; images with a shorter side are left out.
        value_range: values that become black and white, LOW,HIGH, or LOW%,HIGH% of each image's
            own; of images of more than 8 bits a channel, and of floats. By default decided for all
            of them, and told.
        bands: which bands, counted from 1, become red, green and blue, or gray; of every image. A
            fourth one, as in 1,2,3,4, stays a band of its own, for encoders such as resnet18-rgbn.
        alpha: white composites on white, drop takes a band called alpha for another colour; auto
            drops it where it is no transparency, such as near infrared.

    Returns:
        The index of the set.

    Raises:
        ShardError: Bad arguments or input, another set in ``dest``, too many rejects, or a disk
            that refuses.
    """
    if not 0 <= max_rejects <= 1 or (workers is not None and workers < 1):
        raise ShardError(
            "wanted max_rejects from 0 to 1 and at least one worker, "
            f"got {max_rejects} and {workers}"
        )
    root = storage.locate(dest)
    options: dict[str, Any] = {
        "shard_size": shard_size,
        "seed": seed,
        "validate": validate,
        "max_side": max_side,
        "quality": quality,
        "min_side": min_side,
    }
    choice = Choice(value_range, bands or (), alpha)
    part: dict[str, Any] = {"share": share, "classes": classes, "hold_out": hold_out}
    lists: dict[str, Any] = {"image_root": image_root, "columns": columns}
    plan: Plan | None = None
    samples: Iterable[Any] = ()
    if isinstance(src, str | os.PathLike):
        refuse_inside(src, dest)
        plan = make_plan(src, **part, **lists, **options, **choice._asdict())
    else:
        refuse_other(src, lists)
        samples = src
    with locks.exclusive(root, "building"):
        names = _names_in(root)
        if plan is None:
            listing = collect(samples, root, names)
            plan = plan_of(arrange(listing, _title(src), **part), **options, choice=choice)
        _tell(src, [*plan.source.notes, *plan.pixel_notes])
        records = Records(root)
        names = forget_refused(plan, root, records, names)
        index = _finished(plan, root, records, names)
        if index is None:
            began = time.time()
            missing = missing_shards(plan, forget_changed(plan, records, names))
            write_shards(plan, root, missing, workers or available_cores())
            index = commit(plan, root, records, max_rejects=max_rejects, began=began)
            names = _names_in(root)
        else:
            refuse_changed(plan, index)
        _tell(src, [*warnings(index.pixels), *sibling_notes(dest, index.pixels)])
        remove_spool(root, names)
        return index


def _title(src: object) -> str:
    """What a source is called in messages."""
    return str(src) if isinstance(src, str | os.PathLike) else "the samples"


def _tell(src: object, notes: Iterable[str]) -> None:
    """Print what a user might not expect of a source."""
    for note in notes:
        warn(f"{_title(src)}: {note}")


def refuse_inside(src: str | os.PathLike[str], dest: str | Path) -> None:
    """A ``ShardError`` if a set would be built in its own source."""
    if is_inside(dest, src):
        raise ShardError(f"{dest} lies in the source {src}; choose a DEST outside of it")


def is_inside(path: str | Path, folder: str | os.PathLike[str]) -> bool:
    """Whether a path or URL is a folder itself, or somewhere in it.

    Args:
        path: it may lead there over links.
        folder: a path or URL.
    """
    return f"{_resolved(path)}/".startswith(f"{_resolved(folder)}/")


def _resolved(path: str | os.PathLike[str]) -> str:
    """A path without links or dots, or a URL, without a slash at its end."""
    if storage.is_remote(str(path)):
        return str(path).rstrip("/")
    return str(Path(path).resolve())


def _names_in(root: Path) -> list[str]:
    """The names in the folder of a set, all of which must be a build's."""
    if storage.is_remote(root):
        names = list(storage.listing(root, deep=True))
    else:
        names = sorted(path.name for path in root.iterdir())
    foreign = [name for name in names if not is_built_file(name)]
    if foreign:
        raise ShardError(
            f"{root} holds other things ({', '.join(foreign[:3])}); "
            "choose a new or empty folder as DEST"
        )
    return names


def _finished(plan: Plan, root: Path, records: Records, names: Sequence[str]) -> Index | None:
    """The index of the set if it is built, None if there is none or a part of it.

    Raises:
        ShardError: What is there was built from another plan.
    """
    numbers = numbers_of(names)
    if "index.json" in names:
        index = read_index(root)
        digests = {index.plan}
    else:
        index = None
        digests = {records[number].plan for number in numbers}
    if digests - {plan.digest}:
        raise ShardError(
            f"{root} holds {'a set' if index else 'a part of a set'} built from other input or "
            f"options{_difference(plan, index)}; remove it or choose another DEST"
        )
    if index is not None:
        for number in numbers:  # left by a kill after the index was committed
            records.remove(number)
        if LIST in names:
            storage.remove(root / LIST)
    return index


def _difference(plan: Plan, index: Index | None) -> str:
    """What of a finished set is known to be another one, for a message."""
    if index is None:
        return ""
    facts = {
        "its images are": (index.hold_out or "all", plan.source.hold_out or "all"),
        "its seed is": (index.seed, plan.seed),
        "its classes are": (len(index.classes), len(plan.source.classes)),
        "its files are": (index.seen, len(plan.source.samples) + len(plan.source.rejects)),
    }
    differing = [f"{what} {was}, not {now}" for what, (was, now) in facts.items() if was != now]
    return f" ({'; '.join(differing)})" if differing else ""
