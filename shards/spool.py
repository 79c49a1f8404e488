"""Images that an iterable yields, kept beside the set until it is built.

An iterable comes once and in its own order, often a class after the other; a set is in an order
drawn from a seed, and a build can be stopped at any moment. So the images are written down as they
come, in parts of some megabytes, each durable as a whole. A later run finds them by their content
and writes none again.
"""

import operator
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from shards import storage
from shards.memory_images import file_bytes, memory_image
from shards.progress import progress
from shards.rejects import RejectError, Rejection
from shards.sources.candidates import Candidate, Listing
from shards.sources.iterables import YieldedSample, read_samples

PART_BYTES = 64 << 20  # a kill loses at most as many
_RECORD = re.compile(r"\.samples-(\d{6,})\.json")
_PART = re.compile(r"(\.part-)?\.samples-\d{6,}\.(bin|json)")


class Place(NamedTuple):
    """Where the file of an image is.

    Attributes:
        part: name of a part in the folder of the set.
        offset: where its bytes begin.
        size: how many there are.
    """

    part: str
    offset: int
    size: int


class Spool:
    """The images of a set's folder that are written down.

    Args:
        dest: the folder.
        names: the names in it.
    """

    def __init__(self, dest: Path, names: Collection[str]) -> None:
        self.dest = dest
        self.places = dict[str, Place]()
        self._parts = 0
        self._waiting = dict[str, bytes]()
        self._waiting_bytes = 0
        for name in sorted(names):
            record = _RECORD.fullmatch(name)
            if record:
                self._parts = int(record[1]) + 1
                for content, place in storage.read_json(dest / name).items():
                    self.places[content] = Place(*place)

    def add(self, content: str, data: bytes) -> None:
        """Write an image down, now or with those that follow.

        Args:
            content: its digest.
            data: the bytes of its file.
        """
        self._waiting[content] = data
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= PART_BYTES:
            self.flush()

    def flush(self) -> None:
        """Make durable what has been added."""
        if not self._waiting:
            return
        part = f".samples-{self._parts:06}.bin"
        places = dict[str, Place]()
        offset = 0
        for content, data in self._waiting.items():
            places[content] = Place(part, offset, len(data))
            offset += len(data)
        storage.write_bytes(self.dest / part, b"".join(self._waiting.values()))
        storage.write_json(self.dest / f".samples-{self._parts:06}.json", places)
        self.places |= places
        self._parts += 1
        self._waiting = {}
        self._waiting_bytes = 0

    def __contains__(self, content: str) -> bool:
        return content in self.places or content in self._waiting


def is_spooled(name: str) -> bool:
    """Whether a file in a set's folder is a part or its record, be it unfinished."""
    return _PART.fullmatch(name) is not None


def collect(samples: Iterable[Any], dest: Path, names: Collection[str]) -> Listing:
    """List what an iterable yields, and write down the images that have no file.

    What came before an exception, or a Ctrl-C, is written down, too.

    Args:
        samples: see ``shards.sources.iterables.read_samples``.
        dest: the folder of the set.
        names: the names in it; if the set is finished, nothing is written.

    Returns:
        The images; their files are in the spool, or where a sample said.

    Raises:
        ShardError: A sample is none, or the disk refuses.
    """
    spool = None if "index.json" in names else Spool(dest, names)
    images = list[Candidate]()
    rejects = list[Rejection]()
    total = operator.length_hint(samples) or None
    try:
        with progress("reading", total) as advance:
            for sample in read_samples(samples):
                try:
                    images.append(_candidate(sample, spool))
                except RejectError as error:
                    rejects.append(Rejection(error.reason, sample.key))
                advance(1, "")
    finally:
        if spool is not None:
            spool.flush()
    if spool is not None:
        images = [_with_place(image, spool) for image in images]
    return Listing(images, rejects, is_table=True, form="an iterable")


def remove_spool(dest: Path, names: Iterable[str]) -> None:
    """Remove the parts of a set that is finished.

    Args:
        dest: its folder.
        names: the names in it.
    """
    for name in names:
        if is_spooled(name):
            storage.remove(dest / name)


def _candidate(sample: YieldedSample, spool: Spool | None) -> Candidate:
    """The candidate of a sample, whose image is written down where it has no file.

    Raises:
        RejectError: There is no image.
        ShardError: It is no image at all.
    """
    key, image, class_name = sample
    if isinstance(image, str | os.PathLike):
        path = str(image)
        return Candidate(path, key, size=_size_of(path), class_name=class_name)
    content, pixels = memory_image(image, key)
    if spool is not None and content not in spool:
        spool.add(content, file_bytes(pixels))
    return Candidate("", key, class_name=class_name, content=content)


def _with_place(image: Candidate, spool: Spool) -> Candidate:
    """A candidate with the place of its file in the spool, if that is where it is."""
    if not image.content:
        return image
    part, offset, size = spool.places[image.content]
    return image._replace(path=str(spool.dest / part), offset=offset, size=size)


def _size_of(path: str) -> int:
    """How many bytes a local file has, or -1 of what is none, and of a URL."""
    return -1 if storage.is_remote(path) else storage.file_size(path)
