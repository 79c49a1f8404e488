"""The records of the shards that are written of a set, each read once by a build."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from shards import storage
from shards.index import Shard
from shards.pixel_report import PixelCounts
from shards.plan import record_name
from shards.rejects import Rejection

_NAME = re.compile(r"\.shard-(\d{6,})\.json")


class Entry(NamedTuple):
    """What the index will say of a sample: a row of ``samples.npy``, and its key.

    Attributes:
        offset: where its bytes begin in the tar.
        length: how many bytes there are.
        crc32: checksum of these bytes.
        label: its class number, or -1.
        orientation: EXIF's, 1…8, or 0 where it was not looked at.
        key: its name in the set.
    """

    offset: int
    length: int
    crc32: int
    label: int
    orientation: int
    key: str


class ShardRecord(NamedTuple):
    """What is in a shard that is written.

    Attributes:
        plan: the digest of its plan.
        shard: the tar.
        entries: the samples in it, in order.
        rejects: the images that were left out.
        contents: what was read of each image of the shard, see ``shards.contents``.
        pixels: what the samples are like.
    """

    plan: str
    shard: Shard
    entries: list[Entry]
    rejects: list[Rejection]
    contents: list[int]
    pixels: PixelCounts = PixelCounts()


class Records:
    """The records in the folder of a set, read when they are asked for first.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read = dict[int, ShardRecord]()

    def __getitem__(self, number: int) -> ShardRecord:
        """The record of a shard that is written."""
        if number not in self._read:
            self._read[number] = _read_record(self._root / record_name(number))
        return self._read[number]

    def remove(self, number: int) -> None:
        """Remove a record, so that its shard is written again."""
        self._read.pop(number, None)
        storage.remove(self._root / record_name(number))


def numbers_of(names: Iterable[str]) -> list[int]:
    """The shards whose records are among the files in a set's folder.

    Args:
        names: of the files.
    """
    return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))


def write_record(root: Path, number: int, record: ShardRecord) -> None:
    """Write the record of a shard, which is in place by now.

    Args:
        root: the set's folder.
        number: of the shard.
        record: what is in it.
    """
    # not write_json: indenting takes ten times as long
    storage.write_bytes(root / record_name(number), json.dumps(record._asdict()).encode())


def _read_record(file: Path) -> ShardRecord:
    content = storage.read_json(file)
    return ShardRecord(
        plan=content["plan"],
        shard=Shard(*content["shard"]),
        entries=[Entry(*entry) for entry in content["entries"]],
        rejects=[Rejection(*rejection) for rejection in content["rejects"]],
        contents=content.get("contents", []),
        pixels=PixelCounts(*content.get("pixels", ())),
    )
