"""One shard, written from a plan: a pure function of the plan and the shard's number."""

import time
import zlib
from collections.abc import Callable
from pathlib import Path
from shards import storage
from shards.contents import UNKNOWN, is_comparable, remember
from shards.fetch import reading
from shards.index import Shard
from shards.kinds import refuse_unread
from shards.pixel_report import PixelCounts
from shards.plan import Plan, tar_name
from shards.records import Entry, ShardRecord, write_record
from shards.rejects import RejectError, Rejection
from shards.samples import SampleFile, prepare_sample
from shards.sources.candidates import Candidate, file_suffix, is_elsewhere, suffix
from shards.tar_writer import TarWriter

# which part of a set's images, and how many, are looked at for whether they are nearly constant:
# that takes as long as to copy ten
_LOOKED_AT_SHARE = 32
_LEAST_LOOKED_AT, _MOST_LOOKED_AT = 32, 256


def write_shard(
    plan: Plan, dest: Path, number: int, tick: Callable[[], None] = lambda: None
) -> None:
    """Write a shard, then the record of it.

    Args:
        plan: what the set is built from.
        dest: the set's folder.
        number: which of its shards.
        tick: is called before every image, and may raise to stop.

    Raises:
        ShardError: The disk refuses, or an object store fails.
    """
    name = tar_name(number)
    entries = list[Entry]()
    rejects = list[Rejection]()
    contents = list[int]()
    pixels = PixelCounts()
    every = _distance_of_looks(len(plan.source.samples))
    began = time.time()
    with storage.writing(dest / name) as file:
        tar = TarWriter(file)
        with reading(plan.shards[number]) as read:
            for place, image in enumerate(plan.shards[number]):
                tick()
                contents.append(UNKNOWN)
                try:
                    original = read(image)
                    crc32 = zlib.crc32(original)
                    if is_comparable(image):
                        contents[-1] = crc32
                    sample = make_sample(image, original, plan, look=place % every == 0)
                except RejectError as error:
                    rejects.append(Rejection(error.reason, image.name))
                    continue
                if sample.data is not original:
                    crc32 = zlib.crc32(sample.data)
                entries.append(_append_sample(tar, image, sample, crc32))
                pixels = pixels.plus(sample)
        sha256 = tar.finish()
    shard = Shard(name, len(entries), tar.size, sha256)
    record = ShardRecord(plan.digest, shard, entries, rejects, contents, pixels)
    write_record(dest, number, record)
    if not any(is_elsewhere(image.path) for image in plan.shards[number]):
        # a build that goes on after a kill compares them by a look
        remember(plan.shards[number], contents, began)


def _distance_of_looks(count: int) -> int:
    """From how many of the images of a set one is looked at."""
    looks = min(max(count // _LOOKED_AT_SHARE, _LEAST_LOOKED_AT), _MOST_LOOKED_AT)
    return max(1, count // looks)


def make_sample(image: Candidate, original: bytes, plan: Plan, *, look: bool = False) -> SampleFile:
    """What becomes of the bytes of an image in the set.

    Args:
        image: one of the plan's.
        original: the bytes of its file.
        plan: says what every image has to pass, and what is made of it.
        look: whether to see if it is nearly constant.

    Returns:
        The file of the sample.

    Raises:
        RejectError: It cannot be a sample.
    """
    refuse_unread(suffix(image.name))
    sample = prepare_sample(original, plan.making, look=look)
    return sample._replace(suffix=sample.suffix or file_suffix(image.name, sample.data))


def _append_sample(tar: TarWriter, image: Candidate, sample: SampleFile, crc32: int) -> Entry:
    """Write a sample, and its label if it has one."""
    data = sample.data
    offset = tar.append(image.key + sample.suffix, data)
    if image.label >= 0:
        tar.append(f"{image.key}.cls", str(image.label).encode())
    return Entry(offset, len(data), crc32, image.label, sample.orientation, image.key)
